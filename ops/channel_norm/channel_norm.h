#pragma once

// RMS norm over the channels of an image or clip, with the SiLU that follows it in the Wan VAE.
//
//   y = x / max(|x|, eps) * sqrt(C) * gamma      |x|: 2-norm over the C channels of a position
//   out = y * sigmoid(y), or y when `activation` is false
//
// x: [B, C, ...] (images [B, C, H, W], clips [B, C, T, H, W], any rank from 2), gamma: [C]
// -> shape, dtype and memory layout of x. Contiguous tensors and channels-last ones (the channels
// of a position side by side) are read in place; others are made contiguous first.
// x: float32, bfloat16, float16 (float64 on the CPU); gamma may have another floating dtype.
// Everything between load and store is float32 (float64 for float64).
//
// Saved for backward: x and gamma; norm and activation are computed again. Where |x| < eps the norm
// counts as constant, as in torch.nn.functional.normalize. gamma's gradient is summed over fixed
// tiles of positions in a fixed order: the same bits for any number of threads.
// Passes over x: forward 2, backward 3. Source: RMSNorm (Zhang & Sennrich, 2019), SiLU (Elfwing et
// al., 2017); diffusers WanRMS_norm.
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got; a
// second derivative.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

at::Tensor rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma, double eps = 1e-12,
                         bool activation = true);

/// The definition, operation by operation.
namespace reference {
at::Tensor rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma, double eps = 1e-12,
                         bool activation = true);
}  // namespace reference

}  // namespace cosmos::ops
