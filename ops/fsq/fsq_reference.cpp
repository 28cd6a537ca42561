#include <ATen/TensorOperators.h>
#include <ATen/ops/atanh.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/round.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include "ops/core/check.h"
#include "ops/fsq/fsq.h"

namespace cosmos::ops::reference {
namespace {

struct Levels {
  at::Tensor count, width, basis;  ///< L, L / 2, L_0 ... L_(d-1); int64
};

Levels levels_on(const at::Tensor& like, at::IntArrayRef levels) {
  const at::Tensor count = at::tensor(levels, at::kLong).to(like.device());
  std::vector<int64_t> basis(levels.size(), 1);
  for (std::size_t d = 1; d < levels.size(); ++d) basis[d] = basis[d - 1] * levels[d - 1];
  return {count, at::floor_divide(count, 2), at::tensor(basis, at::kLong).to(like.device())};
}

}  // namespace

at::Tensor fsq_bound(const at::Tensor& z, at::IntArrayRef levels, double eps) {
  const at::ScalarType type = accumulate_dtype(z);
  const at::Tensor count = levels_on(z, levels).count.to(at::kDouble);
  const at::Tensor half = (count - 1) * ((1 + eps) / 2);
  const at::Tensor offset = (1 - at::remainder(count, 2)) * 0.5;
  const at::Tensor shift = at::atanh(offset / half);
  return at::tanh(z.to(type) + shift.to(type)) * half.to(type) - offset.to(type);
}

std::tuple<at::Tensor, at::Tensor> fsq(const at::Tensor& z, at::IntArrayRef levels, double eps) {
  const Levels l = levels_on(z, levels);
  const at::Tensor bounded = fsq_bound(z, levels, eps);
  const at::Tensor rounded = at::round(bounded.detach());
  // Rounding with the gradient of the identity.
  const at::Tensor codes = (bounded + (rounded - bounded.detach())) / l.width;
  const at::Tensor digits = rounded.to(at::kLong) + l.width;
  return {codes.to(z.scalar_type()), (digits * l.basis).sum(-1).to(at::kInt)};
}

at::Tensor fsq_decode(const at::Tensor& indices, at::IntArrayRef levels, at::ScalarType dtype) {
  const Levels l = levels_on(indices, levels);
  const at::Tensor index = indices.to(at::kLong).unsqueeze(-1);
  const at::Tensor digits = at::remainder(at::floor_divide(index, l.basis), l.count);
  return ((digits - l.width).to(at::kDouble) / l.width).to(dtype);
}

}  // namespace cosmos::ops::reference
