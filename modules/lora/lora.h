#pragma once

// LoRA and DoRA applied to a model from outside; the model's own code does not know.
//
//   auto report = apply_lora(*model, {.rank = 16, .target_modules = {"to_q", "to_v"}}, seed);
//   ... train: the base is frozen, only adapters require gradients ...
//   save_peft_adapter("out/lora", *model);          // modules/lora/files.h
//   merge_lora(*model);                             // or fold it into the base

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/lora/adapter.h"
#include "modules/lora/config.h"
#include "modules/lora/stack_adapter.h"

namespace cosmos::modules {

struct LoraReport {
  int64_t layers = 0;                ///< Linears and stacks that got an adapter
  int64_t trainable_parameters = 0;  ///< of the adapters
  int64_t base_parameters = 0;       ///< frozen
};

/// Attaches an adapter to every Linear and stack that the config targets and freezes the base.
/// Weights are initialised from (seed, position of the layer). Throws Error when nothing matches,
/// or when the model has adapters already.
LoraReport apply_lora(Model& model, const LoraConfig& config, uint64_t seed = 0);

/// An adapted Linear.
struct LoraLayer {
  std::string name;
  std::shared_ptr<LinearImpl> linear;
  std::shared_ptr<LoraAdapter> adapter;
};

/// All of the model, in registration order.
std::vector<LoraLayer> lora_layers(const Model& model);

/// An adapted stack of weights.
struct LoraStack {
  std::string name;  ///< of the parameter: model.layers.3.mlp.experts.gate_up_proj
  std::shared_ptr<WeightStacksImpl> module;
  WeightStacksImpl::Stack stack;
  std::shared_ptr<StackLora> adapter;
};

/// All of the model, in registration order.
std::vector<LoraStack> lora_stacks(const Model& model);

/// The config that describes the attached adapters (after apply_lora or loading a file). Throws
/// Error when there are none.
LoraConfig lora_config(const Model& model);

/// The samples of the next forward calls, by global index; with an empty list dropout is off.
/// Needed before every forward in training mode when the adapters have dropout.
void set_dropout_samples(Model& model, uint64_t seed, const std::vector<int64_t>& samples);

/// Whether the adapters change anything; false right after apply_lora, and as long as the learning
/// rate is zero. A recipe asks before it exports at a checkpoint.
bool has_effect(const Model& model);

/// Throws Error when the adapters would change nothing (every B zero: never trained), or hold NaN
/// or infinity: such a file would load without complaint everywhere.
void require_effect(const Model& model);

/// What merge_lora took off, for unmerge_lora.
struct MergedLora {
  std::vector<LoraLayer> layers;
  std::vector<LoraStack> stacks;
  Tensors row_scale;  ///< DoRA's m / ||W + s B A|| at the time of merging, undefined without
};

/// W <- W + s B A (DoRA: rows scaled to length m), computed in float32 and cast once; the adapters
/// are detached. The base's parameters require gradients again.
MergedLora merge_lora(Model& model);

/// Takes the update out of the weights again (exact up to rounding to their dtype) and re-attaches
/// the adapters.
void unmerge_lora(Model& model, const MergedLora& merged);

}  // namespace cosmos::modules
