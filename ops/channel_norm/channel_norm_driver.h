#pragma once

// Shapes and buffers of channel_norm.h, below autograd. x: [B, C, ...] as `in_layout` gives it;
// gamma already in the accumulate type.

#include <ATen/core/Tensor.h>
#include <tuple>

namespace cosmos::ops::driver {

/// x itself when it is contiguous or channels-last, else a contiguous copy.
at::Tensor in_layout(const at::Tensor& x);

at::Tensor channel_norm_forward(const at::Tensor& x, const at::Tensor& gamma, double eps,
                                bool activation);

/// {grad of x, grad of gamma ([0] when `gamma_grad` is false)}.
std::tuple<at::Tensor, at::Tensor> channel_norm_backward(const at::Tensor& grad,
                                                         const at::Tensor& x,
                                                         const at::Tensor& gamma, double eps,
                                                         bool activation, bool gamma_grad);

}  // namespace cosmos::ops::driver
