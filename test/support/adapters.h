#pragma once

// What the tests of adapters share.

#include "modules/lora/lora.h"

namespace cosmos::test {

/// As after training: no adapter at its initial value.
inline void randomise_adapters(modules::Model& model) {
  const torch::NoGradGuard no_grad;
  const auto shake = [](const torch::nn::Module& adapter) {
    for (auto& parameter : adapter.parameters()) parameter.add_(torch::randn_like(parameter) * 0.3);
  };
  for (const auto& layer : modules::lora_layers(model)) shake(*layer.adapter);
  for (const auto& stack : modules::lora_stacks(model)) shake(*stack.adapter);
}

}  // namespace cosmos::test
