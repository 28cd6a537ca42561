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
TensorMap averaged_tensors(const modules::Model& model, const Ema& ema) {
  TensorMap tensors = modules::file_tensors(model);
  for (const auto& [name, average] : ema.averages()) tensors.at(model.file_key(name)) = average;
  return tensors;
}

void save_averages(const fs::path& dir, const modules::Model& model, const Ema& ema) {
  const Json config = model.config_json();
  const bool diffusers = config.contains("_class_name");
  modules::save_weights(dir, diffusers ? modules::kDiffusersWeights : modules::kTransformersWeights,
                        averaged_tensors(model, ema));
  modules::write_json(dir / "config.json", config);
}

TensorMap trainable_map(const modules::Model& model) {
  TensorMap tensors;
  for (const auto& [name, tensor] : trainable_parameters(model)) tensors[name] = tensor.detach();
  return tensors;
}

}  // namespace

void save_state(const fs::path& dir, const TrainState& state) {
  if (whole_model_trains(state.model)) {
    modules::save_model(dir / "model", state.model);
    if (state.ema) save_averages(dir / "ema", state.model, *state.ema);
  } else {
    modules::save_safetensors(dir / "trainable.safetensors", trainable_map(state.model));
    if (state.ema) modules::save_safetensors(dir / "ema.safetensors", state.ema->averages());
    state.recipe.write_adapter(dir / "adapter");
  }
  modules::save_safetensors(dir / "optimizer.safetensors", state.optimizer.state());
}

void load_state(const fs::path& dir, const TrainState& state) {
  const bool whole = whole_model_trains(state.model);
  const fs::path weights = dir / (whole ? "model" : "trainable.safetensors");
  require(fs::exists(weights), weights.string(), ": missing; the checkpoint was trained ",
          whole ? "with part of the model frozen, this run trains all of it"
                : "as a whole, this run freezes part of the model");
  if (whole) {
    modules::load_weights(state.model, modules::WeightFolder(weights).tensors(), weights.string());
  } else {
    copy_tensors(modules::load_safetensors(weights), trainable_map(state.model), weights.string());
  }
  state.optimizer.load_state(modules::load_safetensors(dir / "optimizer.safetensors"),
                             (dir / "optimizer.safetensors").string());
  if (!state.ema) return;
  const fs::path ema = dir / (whole ? "ema" : "ema.safetensors");
  if (!fs::exists(ema)) return state.ema->restart();  // switched on since: start from the weights
  if (whole) {
    // The folder is complete: what is not averaged (buffers) is compared by name and copied along.
    copy_tensors(modules::WeightFolder(ema).tensors(), averaged_tensors(state.model, *state.ema),
                 ema.string());
  } else {
    copy_tensors(modules::load_safetensors(ema), state.ema->averages(), ema.string());
  }
}

}  // namespace cosmos::trainer
