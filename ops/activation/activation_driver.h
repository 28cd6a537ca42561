#pragma once

// Shapes and buffers of activation.h, below autograd. `kind` is an ActivationKind.

#include <ATen/core/Tensor.h>
#include <optional>
#include <tuple>

namespace cosmos::ops::driver {

/// f(x), times `up` where given.
at::Tensor activation_forward(const at::Tensor& x, const std::optional<at::Tensor>& up,
                              int64_t kind);

/// {grad of x, grad of up ([0] without up)}.
std::tuple<at::Tensor, at::Tensor> activation_backward(const at::Tensor& grad, const at::Tensor& x,
                                                       const std::optional<at::Tensor>& up,
                                                       int64_t kind);

}  // namespace cosmos::ops::driver
