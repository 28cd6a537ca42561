#pragma once

// Layer norm with modulation (AdaLN), gated residual, and the two in one pass.
//
//   adaln                  y   = (x - mean(x)) / sqrt(var(x) + eps) * (1 + scale) + shift
//   gated_residual         out = x + gate * y
//   gated_residual_adaln   sum = x + gate * y;  normed = adaln(sum, scale, shift)
//
// x, y: [..., D], normalised over D.  scale, shift, gate: x's rank, D last; each leading size is
// x's, or 1 to share one row of modulation. For x: [B, T, N, D]
//   [B, 1, 1, D] per sample,  [B, T, 1, D] per frame,  [B, T, N, D] per token.
// scale and shift share one shape. All tensors of a call share dtype (float32, bfloat16, float16;
// float64 on the CPU) and device; sums are float32 (float64 for float64).
//
// Modulation may be a slice of a wider tensor (a chunk of [..., 3 * D]): it is read in place. x and
// y are copied when they are not contiguous.
//
// Saved for backward: adaln x, scale, mean, rstd; gated_residual y, gate; the fused one sum, y,
// gate, scale, mean, rstd. Gradients of modulation are summed over fixed chunks of rows in a fixed
// order: the same bits on every run and for any number of threads. Bytes per element of x: adaln
// forward 2, backward 3; gated_residual_adaln forward 4, backward 6. Source: DiT (Peebles & Xie,
// ICCV 2023); diffusers CosmosAdaLayerNormZero.
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got; a
// second derivative.

#include <ATen/core/Tensor.h>
#include <tuple>

namespace cosmos::ops {

at::Tensor adaln(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps);

at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);

/// Returns {sum, normed}.
std::tuple<at::Tensor, at::Tensor> gated_residual_adaln(const at::Tensor& x, const at::Tensor& y,
                                                        const at::Tensor& gate,
                                                        const at::Tensor& scale,
                                                        const at::Tensor& shift, double eps);

/// The definition, operation by operation; what COSMOS_OPS=reference runs and tests compare with.
namespace reference {
at::Tensor adaln(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps);
at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);
}  // namespace reference

}  // namespace cosmos::ops
