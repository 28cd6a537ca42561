#pragma once

// Shapes and buffers of rms_norm.h, below autograd. x: [B, L, heads, d]; weight [d] and tables [L,
// pairs] or [B, L, pairs] already in the accumulate type and contiguous.

#include <ATen/core/Tensor.h>
#include <optional>
#include <tuple>

namespace cosmos::ops::driver {

/// Without weight nothing is normed: rotation alone.
at::Tensor rms_norm_forward(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& cos,
                            const std::optional<at::Tensor>& sin, double eps, bool interleaved);

/// {grad of x, grad of weight ([0] when `weight_grad` is false)}.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const at::Tensor& weight,
                                                     const std::optional<at::Tensor>& cos,
                                                     const std::optional<at::Tensor>& sin,
                                                     double eps, bool interleaved,
                                                     bool weight_grad);

}  // namespace cosmos::ops::driver
