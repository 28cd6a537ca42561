#pragma once

// The elementwise ends of a diffusion training step: clean latents and noise to network input, and
// network output to one loss a clip. Both are linear in x0 and noise with one pair of numbers a
// latent frame, so the same kernels serve EDM, Predict2's and rectified flow
// (modules/diffusion/formulation.h has the pairs).
//
//   diffusion_input   out[b,c,t] = p[b,t] x0[b,c,t] + q[b,t] noise[b,c,t]
//   diffusion_loss    loss[b] = sum over t of weight[b,t] mean over c, h, w of
//                               (output - (p[b,t] x0 + q[b,t] noise))²
//
// x0, noise, output: [B, C, T, H, W]; p = x0_scale, q = noise_scale, weight: [B] (one a clip) or
// [B, T] (one a latent frame). loss: [B], float32 (float64 for a float64 output).
// A frame that is shown to the network clean has p = 1, q = 0 in diffusion_input and weight 0 in
// diffusion_loss. Where the weight is 0 nothing is read: the output may be NaN there, its gradient
// is 0. An error in x0 = c_skip x + c_out F is an error in F times c_out: fold c_out² into weight.
//
// output and x0: float32, bfloat16, float16 (float64 on the CPU), x0 and noise of one dtype; the
// numbers per frame of any floating dtype. Latents in float32 or in the dtype of the other side
// (the result of diffusion_input, the output of the network) are read in place, others through a
// copy. Everything between load and store is float32 (float64 for float64).
//
// Gradients: diffusion_input for x0 and noise, diffusion_loss for output only; p, q and weight have
// none. Saved for backward: the arguments, nothing new. Sums are taken over fixed segments and
// added in a fixed order: the same bits for any number of threads. Passes over a latent: input 3,
// loss 3, its backward 4. Source: Karras et al. 2022, "Elucidating the Design Space of
// Diffusion-Based Generative Models", equations 7 and 8; Lipman et al. 2023, "Flow Matching for
// Generative Modeling".
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got; an
// argument without a gradient that requires one; a second derivative of diffusion_loss.

#include <ATen/core/Tensor.h>
#include <optional>

namespace cosmos::ops {

/// `dtype`: of the result, x0's by default.
at::Tensor diffusion_input(const at::Tensor& x0, const at::Tensor& noise,
                           const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                           std::optional<at::ScalarType> dtype = {});

at::Tensor diffusion_loss(const at::Tensor& output, const at::Tensor& x0, const at::Tensor& noise,
                          const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                          const at::Tensor& weight);

/// The definition, operation by operation. Per-frame numbers: [B, T] here.
namespace reference {
at::Tensor diffusion_input(const at::Tensor& x0, const at::Tensor& noise,
                           const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                           at::ScalarType dtype);
at::Tensor diffusion_loss(const at::Tensor& output, const at::Tensor& x0, const at::Tensor& noise,
                          const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                          const at::Tensor& weight);
}  // namespace reference

}  // namespace cosmos::ops
