#pragma once

// Shapes and buffers of adaln.h, below autograd: checks, allocation and the call of the kernel.
// These are what the dispatcher's CPU, CUDA and Meta keys run.

#include <ATen/core/Tensor.h>
#include <tuple>

namespace cosmos::ops::driver {

/// `modulation` with leading sizes of 1 widened to x's, so that its rows are x's segments in order;
/// gradients of the widening belong to autograd. Throws Error when the shape does not fit x.
at::Tensor expand_modulation(const char* op, const at::Tensor& x, const char* name,
                             const at::Tensor& modulation);

std::tuple<at::Tensor, at::Tensor, at::Tensor> adaln_forward(const at::Tensor& x,
                                                             const at::Tensor& scale,
                                                             const at::Tensor& shift, double eps);
std::tuple<at::Tensor, at::Tensor, at::Tensor> adaln_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale, const at::Tensor& mean,
    const at::Tensor& rstd, bool modulation);

at::Tensor gated_residual_forward(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);
std::tuple<at::Tensor, at::Tensor> gated_residual_backward(const at::Tensor& grad,
                                                           const at::Tensor& y,
                                                           const at::Tensor& gate, bool modulation);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gated_residual_adaln_forward(
    const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate, const at::Tensor& scale,
    const at::Tensor& shift, double eps);
/// grad_sum may be undefined. Returns gradients of x, y, gate, scale, shift.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
gated_residual_adaln_backward(const std::optional<at::Tensor>& grad_sum,
                              const at::Tensor& grad_normed, const at::Tensor& sum,
                              const at::Tensor& y, const at::Tensor& gate, const at::Tensor& scale,
                              const at::Tensor& mean, const at::Tensor& rstd, bool modulation);

}  // namespace cosmos::ops::driver
