#pragma once

// AdamW over a list of tensors in one pass, with gradient clipping, bf16 weights over float32
// masters, and a moving average of the weights folded in; and the gradient norm that clipping
// needs.
//
//   t = step + 1 (updates so far, this one included)
//   c = clip coefficient;  g = c * grad;  w = master if given, else param
//   w   = w * (1 - lr * weight_decay)
//   m   = m + (1 - beta1) * (g - m)
//   v   = beta2 * v + (1 - beta2) * g²
//   w   = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//   ema = ema + (1 - ema_decay) * (w - ema)
//   param = w rounded to param's dtype;  step = t
//
// Where the coefficient is not finite (a NaN or infinite gradient norm) nothing is changed: the
// step is skipped on the device, without the host having to look.
//
// params: float32, bfloat16 or float16 (float64 on the CPU), tensors of different dtypes may be
// mixed; grads: as their param, or float32 (sums over micro-batches); exp_avg, exp_avg_sq, master,
// ema: float32 (float64 for float64); step: one float32 number a param, on its device. Every tensor
// is contiguous; all but the gradients are changed in place. Memory is touched once: 28 bytes a
// parameter in float32, 28 with bf16 weights and gradients and float32 master.
// With 8-bit moments (exp_avg_scale and exp_avg_sq_scale given) exp_avg is int8, exp_avg_sq uint8,
// and each block of 256 elements of a tensor, as they lie in memory, has a float32 scale: 2.03
// bytes of state a parameter in place of 8. What codes mean, and how they are rounded:
// moment_codes.h. Not for float64. Same bits on every run and for any number of threads; within an
// ulp of torch.optim.AdamW(fused=True). Source: AdamW (Loshchilov & Hutter, ICLR 2019).
//
// Errors (cosmos::Error): lists of different lengths, a tensor whose shape, dtype, device or layout
// does not fit, with its index.

#include <ATen/core/Tensor.h>
#include <cstdint>
#include <optional>
#include <vector>

namespace cosmos::ops {

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
  double ema_decay = 0;  ///< used where `ema` is given
};

/// What a step changes. master and ema are empty, or as long as params; a float32 param may be its
/// own master.
struct AdamWState {
  std::vector<at::Tensor> params, grads, exp_avg, exp_avg_sq, step, master, ema;
  /// Empty, or one float32 tensor [(elements + 255) / 256] a param.
  std::vector<at::Tensor> exp_avg_scale, exp_avg_sq_scale;
};

/// One step. `clip` is a one-element tensor of the accumulate type on the same device, or undefined
/// for no clipping.
void adamw_step(const AdamWState& state, const AdamWOptions& options, const at::Tensor& clip = {});

/// sqrt of the sum of squares over all tensors (L2 norm of the whole gradient), a float32 scalar
/// (float64 when all are float64) on their device. Undefined tensors are skipped; an empty list has
/// norm 0. Partial sums are over fixed chunks, added in a fixed order in float64.
at::Tensor grad_norm(const std::vector<at::Tensor>& grads);

/// min(1, max_norm / (norm + 1e-6)), NaN where norm is not finite; a tensor, so that no host looks.
at::Tensor clip_coefficient(const at::Tensor& norm, double max_norm);

/// 8-bit moments of one tensor.
struct MomentCodes {
  at::Tensor codes;  ///< int8 (first moment) or uint8 (second), in the tensor's shape
  at::Tensor scale;  ///< float32 [(elements + 255) / 256]
};

/// Codes of a float32 moment (`second`: of squares), rounded to nearest; and back. Decoded codes
/// give the same codes again. On any device.
MomentCodes encode_moment(const at::Tensor& moment, bool second);
at::Tensor decode_moment(const MomentCodes& moment);

/// The definition, operation by operation.
namespace reference {
void adamw_step(const AdamWState& state, const AdamWOptions& options, const at::Tensor& clip = {});
at::Tensor grad_norm(const std::vector<at::Tensor>& grads);
}  // namespace reference

}  // namespace cosmos::ops
