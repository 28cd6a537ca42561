#pragma once

// What apply_lora and the file readers share.

#include <cstdint>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/lora/config.h"

namespace cosmos::modules {

/// What gets an adapter: paths of Linears, and of stacked weights.
struct LoraTargets {
  std::vector<std::string> modules, parameters;
};

/// Freezes the base and attaches adapters to the targets, all of which exist. Throws Error,
/// changing nothing, when the model has adapters already.
void attach_lora(Model& model, const LoraConfig& config, const LoraTargets& targets, uint64_t seed);

/// Parameters of the base only; adapters are left as they are.
void set_base_requires_grad(Model& model, bool requires_grad);

}  // namespace cosmos::modules
