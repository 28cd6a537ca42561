#pragma once

// RMSNorm, alone or of every attention head with rotary positions in the same pass.
//
//   rms_norm        n = x / sqrt(mean(x²) + eps) * weight            over the last dimension
//   rms_norm_rope   n as above per head, then, with a = n[: d/2], b = n[d/2 :],
//                   out = (a cos - b sin, b cos + a sin)             (rotate-half)
//
// rms_norm       x: [..., D], weight: [D] -> [..., D]
// rms_norm_rope  x: [B, L, heads, d] (a view of the linear's [B, L, heads * d]; any strides with d
//                contiguous are read in place), weight: [d], cos, sin: [L, d/2] -> [B, L, heads,
//                d], contiguous: transpose(1, 2) of it is what scaled_dot_product_attention takes
//                without a copy.
// x: float32, bfloat16, float16 (float64 on the CPU); weight and tables may have another floating
// dtype. Everything between load and store is float32 (float64 for float64). The tables carry no
// gradient.
//
// Saved for backward: x, weight, tables; the root mean square is computed again. The weight's
// gradient is summed over fixed chunks of tokens in a fixed order: the same bits for any number of
// threads. Bytes per element of x: forward 2, backward 3. Source: RMSNorm (Zhang & Sennrich, 2019),
// RoFormer (Su et al., 2021); diffusers RMSNorm and apply_rotary_emb with use_real_unbind_dim = -2.
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got; a
// second derivative.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

at::Tensor rms_norm_rope(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                         const at::Tensor& sin, double eps);

/// The definition, operation by operation.
namespace reference {
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor rms_norm_rope(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                         const at::Tensor& sin, double eps);
}  // namespace reference

}  // namespace cosmos::ops
