#pragma once

// Analytic gradients against central differences, in float64.

#include <functional>
#include <string>
#include <torch/autograd.h>

#include "test/support/tolerance.h"

namespace cosmos::test {

using OpFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

/// The scalar sum over outputs of <output, weight>, with fixed pseudo-random weights.
inline at::Tensor weighted_sum(const std::vector<at::Tensor>& outputs) {
  at::Tensor total = at::zeros({}, at::kDouble);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const at::Tensor flat = outputs[i].to(at::kDouble).reshape(-1);
    const at::Tensor weight =
        at::sin(at::arange(flat.numel(), at::kDouble) * 1.7 + 0.3 + static_cast<double>(i));
    total = total + (flat * weight).sum();
  }
  return total;
}

/// Checks d weighted_sum(fn(inputs)) for every float64 input that requires grad, element by
/// element.
/// "" or a message naming the first wrong element.
inline std::string gradcheck(const OpFunction& fn, const std::vector<at::Tensor>& inputs,
                             double step = 1e-6, double tolerance = 1e-6) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : inputs)
    if (x.requires_grad()) leaves.push_back(x);
  const auto grads = torch::autograd::grad({weighted_sum(fn(inputs))}, leaves, {}, std::nullopt,
                                           /*create_graph=*/false, /*allow_unused=*/true);
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const at::Tensor analytic =
        grads[i].defined() ? grads[i].contiguous() : at::zeros_like(leaves[i]);
    for (int64_t j = 0; j < leaves[i].numel(); ++j) {
      // The leaf may be strided: address its j-th element by index arithmetic, not by storage.
      at::Tensor element = leaves[i].as_strided({}, {}, 0);
      int64_t rest = j, offset = leaves[i].storage_offset();
      for (int64_t d = leaves[i].dim() - 1; d >= 0; --d) {
        offset += rest % leaves[i].size(d) * leaves[i].stride(d);
        rest /= leaves[i].size(d);
      }
      element = leaves[i].as_strided({}, {}, offset);
      const double value = element.item<double>();
      element.fill_(value + step);
      const double above = weighted_sum(fn(inputs)).item<double>();
      element.fill_(value - step);
      const double below = weighted_sum(fn(inputs)).item<double>();
      element.fill_(value);
      const double numeric = (above - below) / (2 * step);
      const double got = analytic.view(-1)[j].item<double>();
      if (!(std::abs(got - numeric) <= tolerance * (1 + std::abs(numeric))))
        return "input " + std::to_string(i) + " element " + std::to_string(j) + ": gradient " +
               std::to_string(got) + ", central difference " + std::to_string(numeric);
    }
  }
  return "";
}

}  // namespace cosmos::test
