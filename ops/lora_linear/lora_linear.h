#pragma once

// A linear layer with a low-rank update (LoRA, Hu et al., 2021) whose merged weight is never
// formed:
//
//   y = x Wᵀ + b + s (drop(x) Aᵀ) Bᵀ
//
// x: [..., in], weight W: [out, in], bias b: [out] or none, lora_a A: [r, in], lora_b B: [out, r]
// -> [..., out]; all of one dtype (float32, bfloat16, float16, float64) on one device. drop() is
// ops/dropout: none where dropout = 0, else with the mask of `seeds`, which is drawn again in
// backward.
//
// Two products, the second added to the first inside the GEMM (beta = 1), so that no pass over the
// output is added to the frozen layer's; backward adds the adapter's input gradient the same way:
//
//   t = drop(x) Aᵀ,  g = dy B                            [..., r]
//   dx = dy W + s drop'(g A),  dA = s gᵀ drop(x),  dB = s dyᵀ t
//
// With dropout, g A is a tensor of its own, and one kernel draws the mask once, adds to dx and
// drops x for dA. W and b are frozen as a rule: their gradients are computed only where they are
// required. Saved for backward: x, t and the parameters; neither mask nor dropped x. The GEMMs are
// ATen's on every device, and so are their accumulation and rounding; t and g are rounded to x's
// dtype. Beyond the frozen layer's forward and input gradient: 1.5 r (in + out) / (in out) of their
// arithmetic.
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got; a
// second derivative.

#include <ATen/core/Tensor.h>
#include <vector>

namespace cosmos::ops {

struct LoraUpdate {
  at::Tensor a, b;
  double scale = 1;
  double dropout = 0;
  /// Of the masks: one for each entry of x's first dimension, or one for all of x. Only read where
  /// dropout > 0.
  std::vector<int64_t> seeds = {};
  /// Where x lies in an input that ranks split (ops/dropout); empty: x is whole.
  std::vector<int64_t> slice = {};
};

/// `bias` may be undefined.
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LoraUpdate& lora);

/// The definition, operation by operation.
namespace reference {
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LoraUpdate& lora);
}  // namespace reference

}  // namespace cosmos::ops
