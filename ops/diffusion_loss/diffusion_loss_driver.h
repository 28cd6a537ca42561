#pragma once

// Shapes and buffers of diffusion_loss.h, below autograd. Latents [B, C, T, H, W] in dtype or in
// its accumulate type, numbers per frame [B, T] contiguous in the accumulate type.

#include <ATen/core/Tensor.h>

namespace cosmos::ops::driver {

at::Tensor diffusion_input(const at::Tensor& x0, const at::Tensor& noise,
                           const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                           at::ScalarType dtype);

at::Tensor diffusion_loss(const at::Tensor& output, const at::Tensor& x0, const at::Tensor& noise,
                          const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                          const at::Tensor& weight);

/// Gradient of output. grad: [B].
at::Tensor diffusion_loss_backward(const at::Tensor& grad, const at::Tensor& output,
                                   const at::Tensor& x0, const at::Tensor& noise,
                                   const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                                   const at::Tensor& weight);

}  // namespace cosmos::ops::driver
