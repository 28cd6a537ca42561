#pragma once

// causal_conv.h below autograd.

#include <ATen/core/Tensor.h>
#include <optional>
#include <tuple>

namespace cosmos::ops::driver {

at::Tensor causal_conv(const at::Tensor& x, const std::optional<at::Tensor>& past,
                       const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride, int64_t space_pad, int64_t front, bool repeat_first);

/// {grad of x, of past, of weight, of bias}, [0] where not wanted.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> causal_conv_backward(
    const at::Tensor& grad, const at::Tensor& x, const std::optional<at::Tensor>& past,
    const at::Tensor& weight, at::IntArrayRef stride, int64_t space_pad, int64_t front,
    bool repeat_first, std::array<bool, 4> wanted);

}  // namespace cosmos::ops::driver
