#pragma once

// What apply_lora and the file readers share.

#include <cstdint>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/lora/config.h"

namespace cosmos::modules {

/// Freezes the base and attaches adapters to the Linears named by `modules`, all of which exist.
/// Throws Error, changing nothing, when a Linear of the model has an adapter already.
void attach_lora(Model& model, const LoraConfig& config, const std::vector<std::string>& modules,
                 uint64_t seed);

/// Parameters of the base only; adapters are left as they are.
void set_base_requires_grad(Model& model, bool requires_grad);

}  // namespace cosmos::modules
