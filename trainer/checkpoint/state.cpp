#include "trainer/checkpoint/state.h"

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/weight_folder.h"
#include "trainer/optim/copy_tensors.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

bool whole_model_trains(const modules::Model& model) {
  for (const Tensor& parameter : model.parameters())
    if (!parameter.requires_grad()) return false;
  return true;
}

// The model's folder with the averages in place of the weights, in float32 whatever the model has.
TensorMap averaged_tensors(const modules::Model& model, const TensorMap& averages) {
  TensorMap tensors = modules::file_tensors(model);
  for (const auto& [name, average] : averages) tensors.at(model.file_key(name)) = average;
  return tensors;
}

void save_averages(const fs::path& dir, const modules::Model& model, const TensorMap& averages) {
  const Json config = model.config_json();
  const bool diffusers = config.contains("_class_name");
  modules::save_weights(dir, diffusers ? modules::kDiffusersWeights : modules::kTransformersWeights,
                        averaged_tensors(model, averages));
  modules::write_json(dir / "config.json", config);
}

TensorMap trainable_map(const modules::Model& model) {
  TensorMap tensors;
  for (const auto& [name, tensor] : trainable_parameters(model)) tensors[name] = tensor.detach();
  return tensors;
}

// AdamW::state() of this rank, and the float32 shards of narrower weights as masters.
TensorMap optimizer_state(const TrainState& state) {
  TensorMap all = state.optimizer.state();
  if (!state.sharded) return all;
  const auto parameters = state.model.named_parameters();
  for (const auto& [name, shard] : state.sharded->shards())
    if (parameters[name].scalar_type() != shard.scalar_type())
      all["master." + name] = shard.detach();
  return all;
}

// "exp_avg.blocks.0.weight": what of which parameter. "step" has no rows to split.
std::pair<std::string, std::string> split_key(const std::string& key) {
  const std::size_t dot = key.find('.');
  return {key.substr(0, dot), key.substr(dot + 1)};
}

// fn(prefix, tensors by parameter name) for every kind of optimiser tensor that is split over
// ranks.
template <typename Fn>
void for_each_kind(const TensorMap& optimizer, Fn fn) {
  std::map<std::string, TensorMap> kinds;
  for (const auto& [key, tensor] : optimizer) {
    const auto [kind, name] = split_key(key);
    if (kind != "step") kinds[kind][name] = tensor;
  }
  for (const auto& [kind, tensors] : kinds) fn(kind, tensors);
}

// A tensor's shape without its bytes: what a file is held against.
Tensor shape_alone(const Tensor& x) {
  return torch::empty(x.sizes(), x.options().device(torch::kMeta).requires_grad(false));
}

void load_parameters(const fs::path& file, const TrainState& state, bool whole_model) {
  const FullyShard* sharded = state.sharded;
  const auto take_rows = [&](const std::string& name, const Tensor& whole) {
    const torch::NoGradGuard no_grad;
    if (!sharded->is_elsewhere(name)) sharded->shard(name).copy_(sharded->part_of(name, whole));
  };
  if (!whole_model) {
    copy_tensors(modules::load_safetensors(file), trainable_map(state.model), file.string(),
                 sharded ? TakeNamed(take_rows) : TakeNamed());
    return;
  }
  const auto take = [&](const modules::BaseTensor& place, const Tensor& whole) {
    for (const std::string& name : place.names)
      if (sharded->shard(name).defined() || sharded->is_elsewhere(name))
        return take_rows(name, whole);
    Tensor(place.tensor).copy_(whole);  // a buffer
  };
  modules::load_weights(state.model, modules::WeightFolder(file).tensors(), file.string(),
                        sharded ? modules::TakeTensor(take) : modules::TakeTensor());
}

void load_optimizer(const fs::path& file, const TrainState& state) {
  TensorMap loaded = modules::load_safetensors(file);
  if (!state.sharded) return state.optimizer.load_state(loaded, file.string());
  std::erase_if(loaded, [&](const auto& item) {
    return state.sharded->is_elsewhere(split_key(item.first).second);
  });
  const TensorMap mine = optimizer_state(state);
  const auto parameters = state.model.named_parameters();
  TensorMap wanted;
  for (const auto& [key, tensor] : mine) {
    const auto [kind, name] = split_key(key);
    wanted[key] = shape_alone(kind == "step" ? tensor : parameters[name]);
  }
  copy_tensors(loaded, wanted, file.string(), [&](const std::string& key, const Tensor& whole) {
    const auto [kind, name] = split_key(key);
    Tensor(mine.at(key)).copy_(kind == "step" ? whole : state.sharded->part_of(name, whole));
  });
  TensorMap own;  // of the optimiser; the rest are the shards themselves
  for (const auto& [key, ignored] : state.optimizer.state()) own[key] = mine.at(key);
  state.optimizer.load_state(own, file.string());
}

void load_averages(const fs::path& dir, const TrainState& state, bool whole_model) {
  const fs::path file = dir / (whole_model ? "ema" : "ema.safetensors");
  if (!fs::exists(file)) return state.ema->restart();  // switched on since: start from the weights
  const TensorMap& averages = state.ema->averages();
  const auto parameters = state.model.named_parameters();
  // The folder is complete: what is not averaged (buffers) is compared by name and copied along.
  TensorMap wanted = whole_model ? modules::file_tensors(state.model) : TensorMap();
  std::map<std::string, std::string> name_of;  // file key -> parameter
  for (const auto& [name, average] : averages) {
    const std::string key = whole_model ? state.model.file_key(name) : name;
    name_of[key] = name;
    wanted[key] = shape_alone(parameters[name]);
  }
  TensorMap found =
      whole_model ? modules::WeightFolder(file).tensors() : modules::load_safetensors(file);
  if (state.sharded)  // other stages' averages are none of ours
    for (const auto& item : parameters)
      if (state.sharded->is_elsewhere(item.key())) {
        const std::string key = whole_model ? state.model.file_key(item.key()) : item.key();
        found.erase(key);
        wanted.erase(key);
      }
  const auto take = [&](const std::string& key, const Tensor& whole) {
    const auto averaged = name_of.find(key);
    if (averaged == name_of.end())
      Tensor(wanted.at(key)).copy_(whole);
    else
      Tensor(averages.at(averaged->second))
          .copy_(state.sharded ? state.sharded->part_of(averaged->second, whole) : whole);
  };
  copy_tensors(found, wanted, file.string(), take);
}

}  // namespace

WholeTensors gather_tensors(const TrainState& state) {
  WholeTensors whole;
  whole.optimizer = optimizer_state(state);
  if (state.ema) whole.averages = state.ema->averages();
  if (!state.sharded) return whole;
  for_each_kind(TensorMap(whole.optimizer), [&](const std::string& kind, const TensorMap& mine) {
    for (const auto& [name, tensor] : state.sharded->gather(mine))
      whole.optimizer[kind + "." + name] = tensor;
  });
  for (const auto& [key, tensor] : whole.optimizer)
    if (split_key(key).first == "step") whole.optimizer[key] = tensor.clone();
  whole.optimizer = state.sharded->across_stages(whole.optimizer);
  whole.averages = state.sharded->across_stages(state.sharded->gather(whole.averages));
  return whole;
}

void save_state(const fs::path& dir, const TrainState& state, const WholeTensors& tensors) {
  if (whole_model_trains(state.model)) {
    modules::save_model(dir / "model", state.model);
    if (state.ema) save_averages(dir / "ema", state.model, tensors.averages);
  } else {
    modules::save_safetensors(dir / "trainable.safetensors", trainable_map(state.model));
    if (state.ema) modules::save_safetensors(dir / "ema.safetensors", tensors.averages);
    state.recipe.write_adapter(dir / "adapter");
  }
  modules::save_safetensors(dir / "optimizer.safetensors", tensors.optimizer);
}

void load_state(const fs::path& dir, const TrainState& state) {
  const FullyShard::WholeShapes shapes(state.sharded);
  const bool whole = whole_model_trains(state.model);
  const fs::path weights = dir / (whole ? "model" : "trainable.safetensors");
  require(fs::exists(weights), weights.string(), ": missing; the checkpoint was trained ",
          whole ? "with part of the model frozen, this run trains all of it"
                : "as a whole, this run freezes part of the model");
  load_parameters(weights, state, whole);
  load_optimizer(dir / "optimizer.safetensors", state);
  if (state.ema) load_averages(dir, state, whole);
}

}  // namespace cosmos::trainer
