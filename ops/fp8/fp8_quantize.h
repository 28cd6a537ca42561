#pragma once

// Quantisation to 8-bit floating point with one scale for a tensor, a row or a block.
//
//   amax   = max |x| over the elements that share a scale
//   scale  = amax / largest finite float8      (448 for e4m3fn, 57344 for e5m2)
//   values = float8(clamp(x * (1 / scale)))    round to nearest, ties to even, saturating
//   x      ~ values * scale
//
// `scale` is the dequantisation factor, as at::_scaled_mm takes it (TransformerEngine's and
// torchao's "scale_inv"; their "scale" is its reciprocal).
//
// With x as a matrix of R rows (all dimensions but the last) and K columns, scales are float32:
//   tensor    one for all                           []
//   row       one for each row                      [..., 1]
//   1x128     one for 128 columns of one row        [..., ceil(K / 128)]
//   128x128   one for 128 rows of 128 columns       [ceil(R / 128), ceil(K / 128)]
// Blocks at the edges are smaller. amax has the scale's shape. A scale's shape thus says its
// granularity, and fp8_dequantize and fp8_mm read it there.
//
// power_of_two: scale is rounded up to a power of two, so that scaling itself never rounds.
// A given scale replaces the formula (delayed scaling: it comes from earlier amaxes); amax is
// returned all the same, and elements beyond the range saturate.
//
// Zeros: a group of zeros has scale 1. Tiny: a scale is at least 2^-126, so that 1 / scale is
// finite. Infinity and NaN: amax, and with it a scale that is not given, becomes infinite or NaN,
// and every value of that group dequantises to NaN: an overflow is seen, not hidden. With a given
// scale, NaN stays where it is and infinity saturates. Empty tensors: scale 1, amax 0.
//
// transposed: values and scales are those of x^T, [K, R], rows and blocks being x^T's: what the
// products of a backward pass need, since _scaled_mm contracts over the last dimension of both
// operands. fp8_quantize_pair makes both from one read of x (two for a tensor's or a row's own
// scale: amax first).
//
// x: float32, bfloat16, float16 (float64 on the CPU, rounded to float32 first), any strides (read
// in place when contiguous). No gradient passes through. The same bits on every device (but for the
// sign of a NaN), instruction set and number of threads. Bytes: read x once, twice for a tensor's
// own scale; write one byte an element and copy. Sources: FP8 Formats for Deep Learning
// (Micikevicius et al., 2022), DeepSeek-V3 Technical Report (2024), TransformerEngine, torchao.
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got.

#include <ATen/core/Tensor.h>
#include <optional>
#include <string>

namespace cosmos::ops {

enum class Fp8Granularity { kTensor, kRow, k1x128, k128x128 };

/// "tensor", "row", "1x128" or "128x128". Throws Error on any other name.
Fp8Granularity fp8_granularity(const std::string& name);

/// The largest finite number of float8_e4m3fn or float8_e5m2.
constexpr double fp8_largest(at::ScalarType dtype) {
  return dtype == at::kFloat8_e5m2 ? 57344 : 448;
}

struct Fp8Options {
  at::ScalarType dtype = at::kFloat8_e4m3fn;  ///< or kFloat8_e5m2
  Fp8Granularity granularity = Fp8Granularity::kTensor;
  bool power_of_two = false;
};

struct Fp8Tensor {
  at::Tensor values, scale, amax;
};

/// x and its transpose; amax belongs to `values`.
struct Fp8Pair {
  at::Tensor values, scale, values_t, scale_t, amax;
};

/// `scale`, when given, is laid out as the result's.
Fp8Tensor fp8_quantize(const at::Tensor& x, const Fp8Options& options,
                       const std::optional<at::Tensor>& scale = {}, bool transposed = false);

/// A given scale is one of x, and needs granularity tensor or 128x128, whose scales x^T shares.
Fp8Pair fp8_quantize_pair(const at::Tensor& x, const Fp8Options& options,
                          const std::optional<at::Tensor>& scale = {});

/// values * scale in `dtype` (float32, bfloat16, float16; float64), computed in float32.
at::Tensor fp8_dequantize(const at::Tensor& values, const at::Tensor& scale,
                          at::ScalarType dtype = at::kFloat);

/// The definition, operation by operation.
namespace reference {
/// The formula for `scale` above, elementwise. `max` is the format's largest finite value.
at::Tensor fp8_scale(const at::Tensor& amax, const at::Tensor& max, bool power_of_two);
Fp8Tensor fp8_quantize(const at::Tensor& x, const Fp8Options& options,
                       const std::optional<at::Tensor>& scale = {}, bool transposed = false);
at::Tensor fp8_dequantize(const at::Tensor& values, const at::Tensor& scale,
                          at::ScalarType dtype = at::kFloat);
}  // namespace reference

}  // namespace cosmos::ops
