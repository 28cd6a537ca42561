#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>
#include <vector>

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

at::Tensor rms_norm_rope(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                         const at::Tensor& cos, const at::Tensor& sin, double eps,
                         bool interleaved) {
  const at::Tensor normed = weight ? norm_wide(x, *weight, eps) : x.to(accumulate_dtype(x));
  const int64_t pairs = cos.size(-1);
  const at::Tensor rotated = normed.narrow(-1, 0, 2 * pairs);
  const at::Tensor a = interleaved ? rotated.slice(-1, 0, {}, 2) : rotated.narrow(-1, 0, pairs);
  const at::Tensor b = interleaved ? rotated.slice(-1, 1, {}, 2) : rotated.narrow(-1, pairs, pairs);
  const at::Tensor c = cos.to(normed.scalar_type()).unsqueeze(-2);  // [(B,) L, 1, pairs]
  const at::Tensor s = sin.to(normed.scalar_type()).unsqueeze(-2);
  const std::vector<at::Tensor> turned{a * c - b * s, b * c + a * s};
  return at::cat({interleaved ? at::stack(turned, -1).flatten(-2) : at::cat(turned, -1),
                  normed.narrow(-1, 2 * pairs, x.size(-1) - 2 * pairs)},
                 -1)
      .to(x.scalar_type());
}

}  // namespace cosmos::ops::reference
