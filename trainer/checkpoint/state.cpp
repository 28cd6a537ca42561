// Reading a checkpoint.

#include "trainer/checkpoint/state.h"

#include "modules/hub/model_weights.h"
#include "modules/hub/weight_folder.h"
#include "trainer/optim/copy_tensors.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;

bool whole_model_trains(const modules::Model& model) {
  for (const Tensor& parameter : model.parameters())
    if (!parameter.requires_grad()) return false;
  return true;
}

TensorMap optimizer_state(const TrainState& state) {
  TensorMap all = state.optimizer.state();
  if (!state.sharded) return all;
  const auto parameters = state.model.named_parameters();
  for (const auto& [name, shard] : state.sharded->shards())
    if (parameters[name].scalar_type() != shard.scalar_type())
      all["master." + name] = shard.detach();
  return all;
}

std::pair<std::string, std::string> split_key(const std::string& key) {
  const std::size_t dot = key.find('.');
  return {key.substr(0, dot), key.substr(dot + 1)};
}

namespace {

TensorMap trainable_map(const modules::Model& model) {
  TensorMap tensors;
  for (const auto& [name, tensor] : trainable_parameters(model)) tensors[name] = tensor.detach();
  return tensors;
}

// A tensor's shape without its bytes: what a file is held against.
Tensor shape_alone(const Tensor& x) {
  return torch::empty(x.sizes(), x.options().device(torch::kMeta).requires_grad(false));
}

void load_parameters(const fs::path& file, const TrainState& state, bool whole_model) {
  const FullyShard* sharded = state.sharded;
  const auto take_region = [&](const std::string& name, const Tensor& whole) {
    const torch::NoGradGuard no_grad;
    if (!sharded->is_elsewhere(name))
      sharded->shard(name).copy_(region_of(whole, sharded->region(name)));
  };
  if (!whole_model) {
    copy_tensors(modules::load_safetensors(file), trainable_map(state.model), file.string(),
                 sharded ? TakeNamed(take_region) : TakeNamed());
    return;
  }
  const auto take = [&](const modules::BaseTensor& place, const Tensor& whole) {
    for (const std::string& name : place.names)
      if (sharded->shard(name).defined() || sharded->is_elsewhere(name))
        return take_region(name, whole);
    Tensor(place.tensor).copy_(whole);  // a buffer
  };
  modules::load_weights(state.model, state.model.from_file(modules::WeightFolder(file).tensors()),
                        file.string(), sharded ? modules::TakeTensor(take) : modules::TakeTensor());
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
    Tensor(mine.at(key))
        .copy_(kind == "step" ? whole : region_of(whole, state.sharded->region(name)));
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
  TensorMap found = whole_model ? state.model.from_file(modules::WeightFolder(file).tensors())
                                : modules::load_safetensors(file);
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
          .copy_(state.sharded ? region_of(whole, state.sharded->region(averaged->second)) : whole);
  };
  copy_tensors(found, wanted, file.string(), take);
}

void load_fp8(const fs::path& file, modules::Fp8Layers& fp8) {
  const TensorMap wanted = fp8.state();
  // Switched on since: the first step fills the history.
  if (wanted.empty() || !fs::exists(file)) return;
  copy_tensors(modules::load_safetensors(file), wanted, file.string());
  fp8.state_was_loaded();
}

}  // namespace

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
  if (state.fp8) load_fp8(dir / "fp8.safetensors", *state.fp8);
}

}  // namespace cosmos::trainer
