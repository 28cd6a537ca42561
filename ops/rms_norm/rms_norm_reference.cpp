#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rsqrt.h>

#include "ops/core/check.h"
#include "ops/rms_norm/rms_norm.h"

namespace cosmos::ops::reference {
namespace {

at::Tensor norm_wide(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::ScalarType type = accumulate_dtype(x);
  const at::Tensor wide = x.to(type);
  const at::Tensor square = (wide * wide).mean(-1, /*keepdim=*/true);
  return wide * at::rsqrt(square + eps) * weight.to(type);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return norm_wide(x, weight, eps).to(x.scalar_type());
}

at::Tensor rms_norm_rope(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                         const at::Tensor& sin, double eps) {
  const at::Tensor normed = norm_wide(x, weight, eps);
  const int64_t half = x.size(-1) / 2;
  const at::Tensor a = normed.narrow(-1, 0, half), b = normed.narrow(-1, half, half);
  const at::Tensor c = cos.to(normed.scalar_type()).unsqueeze(1);  // [L, 1, d / 2]
  const at::Tensor s = sin.to(normed.scalar_type()).unsqueeze(1);
  return at::cat({a * c - b * s, b * c + a * s}, -1).to(x.scalar_type());
}

}  // namespace cosmos::ops::reference
