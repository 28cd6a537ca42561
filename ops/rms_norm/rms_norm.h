#pragma once

// RMSNorm, alone or of every attention head with rotary positions in the same pass; the rotation
// alone where a model norms no heads (Qwen2.5-VL).
//
//   rms_norm        n = x / sqrt(mean(x²) + eps) * weight            over the last dimension
//   rms_norm_rope   n as above per head (n = x without weight), then for the pairs (a, b) of n
//                   (a, b) <- (a cos - b sin, b cos + a sin)
//                   pair i is (n[i], n[i + pairs]) (rotate-half), or (n[2 i], n[2 i + 1]) when
//                   `interleaved`; numbers from 2 * pairs on pass through (partial rotary)
//
// rms_norm       x: [..., D], weight: [D] -> [..., D]
// rms_norm_rope  x: [B, L, heads, d] (a view of the linear's [B, L, heads * d]; any strides with d
//                contiguous are read in place), weight: [d] or none, cos, sin: [L, pairs], or
//                [B, L, pairs] where samples differ, pairs <= d/2 -> [B, L, heads, d], contiguous:
//                transpose(1, 2) of it is what scaled_dot_product_attention takes without a copy.
// x: float32, bfloat16, float16 (float64 on the CPU); weight and tables may have another floating
// dtype. Everything between load and store is float32 (float64 for float64). The tables carry no
// gradient.
//
// Saved for backward: x, weight, tables (without weight the tables only); the root mean square is
// computed again. The weight's gradient is summed over fixed chunks of tokens in a fixed order: the
// same bits for any number of threads. Bytes per element of x: forward 2, backward 3 (2 without
// weight). Source: RMSNorm (Zhang & Sennrich, 2019), RoFormer (Su et al., 2021); diffusers RMSNorm
// and apply_rotary_emb with use_real_unbind_dim = -2 (interleaved: -1).
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got; a
// second derivative.

#include <ATen/core/Tensor.h>
#include <optional>
#include <tuple>

namespace cosmos::ops {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

at::Tensor rms_norm_rope(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                         const at::Tensor& cos, const at::Tensor& sin, double eps,
                         bool interleaved = false);

/// {cos, sin}, float32 [B, L, head_dim / 2], of multimodal RoPE: frequency j is
/// theta^(-2 j / head_dim) and turns with the token's position on one of three axes (time, height,
/// width). sections: numbers of frequencies of each axis, head_dim / 2 in all. Axes lie one after
/// the other (Qwen2-VL, Qwen2.5-VL: 16, 24, 24), or, `interleaved`, in turns t h w t h w ... for as
/// long as height and width have frequencies left, then time (Qwen3-VL: 24, 20, 20). Both go with
/// the rotate-half pairs of rms_norm_rope.  position_ids: integers [3, B, L]. Plain ATen: once a
/// step, not once a layer.
std::tuple<at::Tensor, at::Tensor> mrope_tables(const at::Tensor& position_ids, double theta,
                                                int64_t head_dim, at::IntArrayRef sections,
                                                bool interleaved = false);

/// The definition, operation by operation.
namespace reference {
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor rms_norm_rope(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                         const at::Tensor& cos, const at::Tensor& sin, double eps,
                         bool interleaved = false);
}  // namespace reference

}  // namespace cosmos::ops
