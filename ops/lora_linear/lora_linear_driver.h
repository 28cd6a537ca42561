#pragma once

// The products of lora_linear.h, below autograd. x: [N, in], grad: [N, out]; with dropout, N is
// seeds.size() equal samples.

#include <ATen/core/Tensor.h>
#include <array>
#include <optional>
#include <tuple>

namespace cosmos::ops::driver {

/// {y [N, out], t [N, r]}.
std::tuple<at::Tensor, at::Tensor> lora_linear_forward(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& lora_a,
    const at::Tensor& lora_b, const std::optional<at::Tensor>& bias, double scale, double dropout,
    at::IntArrayRef seeds, at::IntArrayRef slice);

/// Gradients of x, weight, lora_a, lora_b, bias; [0] for those that are not wanted.
using LoraGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
LoraGradients lora_linear_backward(const at::Tensor& grad, const at::Tensor& x,
                                   const at::Tensor& weight, const at::Tensor& lora_a,
                                   const at::Tensor& lora_b, const at::Tensor& t, double scale,
                                   double dropout, at::IntArrayRef seeds, at::IntArrayRef slice,
                                   std::array<bool, 5> wanted);

}  // namespace cosmos::ops::driver
