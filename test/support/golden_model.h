#pragma once

// Models whose weights and inputs follow from a formula, against answers that test/reference/
// *_golden.py recorded: the file holds answers only.

#include <catch2/catch.hpp>
#include <string>

#include "modules/core/model.h"
#include "modules/hub/safetensors.h"
#include "test/support/golden.h"

namespace cosmos::test {

/// The inputs of a case; "zeros" is a mask of the size of the 5-dimensional `latents`.
inline TensorMap golden_inputs(const Json& golden_case, const std::string& latents) {
  TensorMap inputs;
  int64_t k = 0;
  for (const auto& [name, shape] : golden_case["shapes"].items())  // Json objects are sorted
    inputs[name] = wave(shape.get<std::vector<int64_t>>(), k++).to(torch::kFloat32);
  for (const auto& [name, value] : golden_case["others"].items()) {
    const auto& x = inputs[latents];
    inputs[name] = value == "zeros" ? torch::zeros({1, 1, x.size(3), x.size(4)})
                                    : torch::tensor(value.get<std::vector<double>>());
  }
  return inputs;
}

/// Fills `model`, runs "forward" and compares outputs, loss and gradients with `name`.* of the
/// file.
inline void check_golden(modules::Model& model, const modules::SafetensorsFile& golden,
                         const std::string& name, const TensorMap& inputs) {
  fill(model);
  Tensor loss = torch::zeros({});
  for (const auto& [output, value] : model.run("forward", inputs)) {
    INFO(output);
    CHECK(relative(value, golden.get(name + "." + output)) < 1e-5);
    loss = loss + value.square().mean();
  }
  loss.backward();
  CHECK(relative(loss, golden.get(name + ".loss")) < 1e-5);

  const Tensor grads = gradient_probes(model);
  Tensor want = golden.get(name + ".grads");
  REQUIRE(grads.sizes() == want.sizes());
  // Each parameter by itself: an error in a small one must not hide behind the large ones.
  Tensor scale = want.select(1, 0).clamp_min(1e-5 * want.select(1, 0).norm().item<double>());
  CHECK(((grads - want).abs() / scale.unsqueeze(1)).max().item<double>() < 1e-4);
}

}  // namespace cosmos::test
