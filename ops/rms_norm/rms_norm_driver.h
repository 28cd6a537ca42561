#pragma once

// Shapes and buffers of rms_norm.h, below autograd. x: [B, L, heads, d]; weight [d] and tables [L,
// d/2] already in the accumulate type.

#include <ATen/core/Tensor.h>
#include <optional>
#include <tuple>

namespace cosmos::ops::driver {

at::Tensor rms_norm_forward(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& cos,
                            const std::optional<at::Tensor>& sin, double eps);

/// {grad of x, grad of weight ([0] when `weight_grad` is false)}.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const at::Tensor& weight,
                                                     const std::optional<at::Tensor>& cos,
                                                     const std::optional<at::Tensor>& sin,
                                                     double eps, bool weight_grad);

}  // namespace cosmos::ops::driver
