#pragma once

// Finite scalar quantisation: every dimension of a latent rounded to one of a few levels.
//
//   fsq         bounded = tanh(z + shift) * half - offset      per dimension of L levels, where
//                 half = (L - 1) (1 + eps) / 2, offset = 1/2 for even L and 0 for odd L,
//                 shift = atanh(offset / half)
//               code = round(bounded) / (L / 2)                (whole-number L / 2, ties to even)
//               index = sum over d of (round(bounded_d) + L_d / 2) * L_0 ... L_(d-1)
//   fsq_decode  the codes of indices
//
// z: [..., D], D levels of at least 2 each (at most 16 dimensions, at most 2^31 - 1 codes)
// -> codes: shape and dtype of z, indices: [...], int32. Indices carry no gradient; codes pass it
// straight through the rounding: d code / d z = (1 - tanh²(z + shift)) half / (L / 2).
// fsq_decode: indices [...], int32 -> [..., D] in `dtype`; an index outside [0, number of codes)
// gives a meaningless code.
// z: float32, bfloat16, float16 (float64 on the CPU), contiguous (others are copied). Everything
// between load and store is float32 (float64 for float64).
//
// Saved for backward: z. Passes over z: forward 2 and the indices, backward 3.
// Source: Mentzer et al., 2023 ("Finite Scalar Quantization: VQ-VAE Made Simple"); the variant with
// 1 + eps and atanh that Cosmos-Tokenizer (NVIDIA, 2024) uses. Levels of its discrete tokenizers:
// 8, 8, 8, 5, 5, 5.
//
// Errors (cosmos::Error): levels, a shape or a dtype that does not fit, with expected and got; a
// second derivative.

#include <ATen/core/Tensor.h>
#include <tuple>

namespace cosmos::ops {

/// {codes, indices}.
std::tuple<at::Tensor, at::Tensor> fsq(const at::Tensor& z, at::IntArrayRef levels,
                                       double eps = 1e-3);

at::Tensor fsq_decode(const at::Tensor& indices, at::IntArrayRef levels,
                      at::ScalarType dtype = at::kFloat);

/// The definition, operation by operation.
namespace reference {
/// z before it is rounded, in float32 at least.
at::Tensor fsq_bound(const at::Tensor& z, at::IntArrayRef levels, double eps = 1e-3);
std::tuple<at::Tensor, at::Tensor> fsq(const at::Tensor& z, at::IntArrayRef levels,
                                       double eps = 1e-3);
at::Tensor fsq_decode(const at::Tensor& indices, at::IntArrayRef levels,
                      at::ScalarType dtype = at::kFloat);
}  // namespace reference

}  // namespace cosmos::ops
