#pragma once

// Weights as compressed-tensors' FP8_DYNAMIC keeps them, which vLLM and transformers load: of every
// product float8_e4m3fn rows with a scale each, W ~ diag(weight_scale) W8; activations are rounded
// by token when it runs, so nothing is calibrated.

#include <string>
#include <vector>

#include "modules/core/model.h"

namespace cosmos::modules {

struct Fp8Weights {
  TensorMap tensors;    ///< by file key, `weight_scale` [out, 1] beside each rounded `weight`
  Json config;          ///< quantization_config of config.json
  int64_t rounded = 0;  ///< products
};

/// `tensors`: file_tensors(model). Products whose name holds one of `kept` stay as they are: the
/// head, the vision tower, routers. Throws Error on a class whose experts are one tensor: no loader
/// takes those rounded.
Fp8Weights fp8_weights(const Model& model, TensorMap tensors,
                       const std::vector<std::string>& kept = {"lm_head", "visual"});

}  // namespace cosmos::modules
