#pragma once

// Linear layer whose three products are of 8-bit operands.
//
//   y  = Q(x) Q(weight)^T + bias      Q: quantised and dequantised, e4m3
//   dx = G(dy) Q(weight^T)^T          G: in recipe.gradient, e5m2 or e4m3
//   dW = G(dy^T) Q(x^T)^T
//   db = sum of dy over rows, not quantised
//
// Each operand is quantised along the dimension that its product contracts, as
// fp8_quantize.h says:
//   scaling   x, x^T, dy, dy^T   weight, weight^T
//   tensor    one scale          one scale
//   row       one a row          one a row
//   block     1x128              128x128            (DeepSeek-V3; there with e4m3 gradients)
//
// x: [..., in], weight: [out, in], bias: [out] or none -> [..., out] in x's dtype; weight and bias
// may have another floating dtype (float32 masters), and their gradients have it.
// Saved for backward: x^T in e4m3 with its scales (1 byte an element; nothing of x where the weight
// needs no gradient), weight. No second derivative.
//
// CUDA: at::_scaled_mm where the device and the shapes allow it (fp8_mm below). CPU, and everything
// else: the same bits of values and scales, and the product of the values in float32 (float64 for
// float64), scaled afterwards for tensor and row, operands scaled first for blocks. Products of
// two values are exact in float32; the sums are not rounded as a GPU's are: Hopper's tensor cores
// keep about 14 bits of an accumulator, added into float32 now and then (without
// fast_accumulation) or at the end (with it).
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got.

#include <ATen/core/Tensor.h>
#include <optional>
#include <string>

#include "ops/fp8/fp8_quantize.h"

namespace cosmos::ops {

enum class Fp8Scaling { kTensor, kRow, kBlock };

struct Fp8Recipe {
  Fp8Scaling scaling = Fp8Scaling::kTensor;
  at::ScalarType gradient = at::kFloat8_e5m2;  ///< or kFloat8_e4m3fn
  bool power_of_two = false;
  /// Of the forward product on tensor cores, scaling tensor or row; backward never.
  bool fast_accumulation = true;
};

/// Delayed scaling of one layer, one scale a tensor: 0 is x, 1 weight, 2 the output's gradient.
/// Layers may be views of one tensor with leading dimensions, advanced together.
struct Fp8Delayed {
  at::Tensor scale;         ///< float32 [..., 3]
  at::Tensor amax_history;  ///< float32 [..., 3, length], newest first
};

/// Scales 1 and an empty history, on `like`'s device. Until the first advance values would not
/// be scaled, and gradients below e5m2's 2^-16 be lost: leave the scale out of the first step.
Fp8Delayed fp8_delayed(const at::Tensor& like, int64_t layers, int64_t length);

/// Once a step, after backward: scale = formula(largest finite amax of the history); where none is
/// above 0 the scale stays. Then the history moves on by one.
void fp8_delayed_advance(const Fp8Delayed& state, const Fp8Recipe& recipe);

/// A weight that is there in 8 bits alone (ranks gathered it so): e4m3 values [out, in] and their
/// scale, as fp8_quantize gives them for scaling tensor or block.
struct Fp8Weight {
  at::Tensor values, scale;
};

/// Current scaling, or, with `delayed` ([3] and [3, length]), scales from there: recipe.scaling
/// must be tensor. The newest amax is raised to what is seen, so that micro-batches and recomputed
/// activations may pass more than once a step. With a history and no scale: current scaling that
/// fills the history, for the first step. With `quantised` it is the weight: of `weight` shape and
/// dtype count, it receives the gradient, and no amax of it is recorded. `quantised.values` may
/// have no bytes between the passes.
at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, const Fp8Recipe& recipe,
                      const Fp8Delayed& delayed = {}, const Fp8Weight& quantised = {});

/// a [M, K] * b [N, K]^T of values with their scales (as fp8_quantize gives them, of any
/// granularity) + bias, in `dtype`. On CUDA by at::_scaled_mm where that takes the operands: scales
/// of tensor with tensor or row with row, or of blocks (not 128x128 twice) on sm_90; K and N
/// multiples of 16; not e5m2 twice; for blocks K a multiple of 128, of 512 under 128x128 scales,
/// and the rows under 1x128 scales multiples of 4. Otherwise operands are dequantised.
at::Tensor fp8_mm(const at::Tensor& a, const at::Tensor& scale_a, const at::Tensor& b,
                  const at::Tensor& scale_b, at::ScalarType dtype,
                  const std::optional<at::Tensor>& bias = {}, bool fast_accumulation = false);

/// The definition, operation by operation; differentiable by the formulas above.
namespace reference {
at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, const Fp8Recipe& recipe);
}  // namespace reference

}  // namespace cosmos::ops
