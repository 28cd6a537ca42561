#pragma once

// Models whose weights and inputs follow from a formula, against answers that test/reference/
// *_golden.py recorded: the file holds answers only.

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>

#include "modules/core/model.h"
#include "modules/hub/safetensors.h"

namespace cosmos::test {

/// The formula of test/reference/dit_golden.py.
inline Tensor wave(at::IntArrayRef shape, int64_t k) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return torch::sin(0.7 * torch::arange(count, torch::kFloat64) + (1.3 * k + 0.2)).view(shape);
}

inline std::map<std::string, Tensor> sorted_parameters(const torch::nn::Module& module) {
  std::map<std::string, Tensor> sorted;
  for (const auto& item : module.named_parameters()) sorted[item.key()] = item.value();
  return sorted;
}

inline void fill(torch::nn::Module& module) {
  torch::NoGradGuard no_grad;
  int64_t k = 0;
  for (auto& [name, weight] : sorted_parameters(module)) {
    Tensor value = wave(weight.sizes(), k++);
    const bool bias = name.size() > 4 && name.substr(name.size() - 4) == "bias";
    if (weight.dim() > 1) {
      value = value / std::sqrt(static_cast<double>(weight.size(1)));
    } else {
      value = 0.1 * value + (bias ? 0.0 : 1.0);
    }
    weight.copy_(value);
  }
}

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

inline double relative(const Tensor& got, const Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

/// Fills `model`, runs "forward" and compares outputs, loss and gradients with `name`.* of the file.
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

  std::vector<double> rows;
  for (const auto& [parameter, weight] : sorted_parameters(model)) {
    INFO(parameter);
    REQUIRE(weight.grad().defined());
    Tensor grad = weight.grad().to(torch::kFloat64).flatten();
    Tensor probe = torch::cos(0.3 * torch::arange(grad.numel(), torch::kFloat64));
    rows.push_back(grad.norm().item<double>());
    rows.push_back(grad.dot(probe).item<double>());
  }
  Tensor grads = torch::tensor(rows).view({-1, 2});
  Tensor want = golden.get(name + ".grads");
  REQUIRE(grads.sizes() == want.sizes());
  // Each parameter by itself: an error in a small one must not hide behind the large ones.
  Tensor scale = want.select(1, 0).clamp_min(1e-5 * want.select(1, 0).norm().item<double>());
  CHECK(((grads - want).abs() / scale.unsqueeze(1)).max().item<double>() < 1e-4);
}

}  // namespace cosmos::test
