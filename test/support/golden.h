#pragma once

// The formula of the golden files: weights and inputs that follow from it, so that a file holds
// answers only (test/reference/*_golden.py has the same in Python).

#include <cmath>
#include <map>
#include <string>

#include "modules/core/tensor.h"

namespace cosmos::test {

/// Element i is sin(0.7 i + 1.3 k + 0.2), in float64.
inline Tensor wave(at::IntArrayRef shape, int64_t k) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return torch::sin(0.7 * torch::arange(count, torch::kFloat64) + (1.3 * k + 0.2)).view(shape);
}

/// By name, a tied one once, under its first name.
inline std::map<std::string, Tensor> sorted_parameters(const torch::nn::Module& module) {
  std::map<std::string, Tensor> sorted;
  std::map<const void*, bool> seen;
  for (const auto& item : module.named_parameters())
    if (!std::exchange(seen[item.value().unsafeGetTensorImpl()], true))
      sorted[item.key()] = item.value();
  return sorted;
}

/// Tensor k in alphabetical order: the wave / sqrt(columns) with two dimensions or more, * 0.1 + 1
/// with one (biases: * 0.1).
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

/// Of each gradient in alphabetical order its norm and its product with cos(0.3 i): [parameters,
/// 2]. A parameter without gradient has zeros.
inline Tensor gradient_probes(const torch::nn::Module& module) {
  Tensors rows;
  for (const auto& [name, weight] : sorted_parameters(module)) {
    const Tensor grad = weight.grad().defined() ? weight.grad().to(torch::kFloat64)
                                                : torch::zeros({1}, torch::kFloat64);
    const Tensor probe = torch::cos(0.3 * torch::arange(grad.numel(), torch::kFloat64));
    rows.push_back(torch::stack({grad.norm(), grad.flatten().dot(probe)}));
  }
  return torch::stack(rows);
}

inline double relative(const Tensor& got, const Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

}  // namespace cosmos::test
