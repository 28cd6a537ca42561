#include "ops/lora_linear/lora_linear_driver.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include "ops/dropout/dropout_driver.h"

namespace cosmos::ops::driver {
namespace {

using at::Tensor;

/// scale * a b, scaled inside the product.
Tensor scaled_mm(const Tensor& a, const Tensor& b, double scale) {
  return at::empty({a.size(0), b.size(1)}, a.options()).addmm_(a, b, /*beta=*/0, scale);
}

/// dy B. MKL is twice as slow for a right-hand side of few contiguous columns as for its transpose.
Tensor to_rank(const Tensor& grad, const Tensor& lora_b) {
  const bool few = lora_b.size(1) < 16 && lora_b.is_cpu() && lora_b.scalar_type() == at::kFloat;
  return at::mm(grad, few ? lora_b.t().contiguous().t() : lora_b);
}

LoraGradients meta_gradients(const Tensor& x, const Tensor& weight, const Tensor& lora_a,
                             const Tensor& lora_b, std::array<bool, 5> wanted) {
  const auto like = [&](int i, c10::SymIntArrayRef shape) {
    return wanted[i] ? at::empty_symint(shape, x.options()) : at::empty({0}, x.options());
  };
  return {like(0, x.sym_sizes()), like(1, weight.sym_sizes()), like(2, lora_a.sym_sizes()),
          like(3, lora_b.sym_sizes()), like(4, {weight.sym_size(0)})};
}

}  // namespace

std::tuple<Tensor, Tensor> lora_linear_forward(const Tensor& x, const Tensor& weight,
                                               const Tensor& lora_a, const Tensor& lora_b,
                                               const std::optional<Tensor>& bias, double scale,
                                               double dropout, at::IntArrayRef seeds,
                                               at::IntArrayRef slice) {
  if (x.is_meta())
    return {at::empty_symint({x.sym_size(0), weight.sym_size(0)}, x.options()),
            at::empty_symint({x.sym_size(0), lora_a.sym_size(0)}, x.options())};
  Tensor out = bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());
  Tensor t = at::mm(dropout > 0 ? seeded_dropout(x, dropout, seeds, slice) : x, lora_a.t());
  out.addmm_(t, lora_b.t(), /*beta=*/1, scale);
  return {out, t};
}

LoraGradients lora_linear_backward(const Tensor& upstream, const Tensor& x, const Tensor& weight,
                                   const Tensor& lora_a, const Tensor& lora_b, const Tensor& t,
                                   double scale, double dropout, at::IntArrayRef seeds,
                                   at::IntArrayRef slice, std::array<bool, 5> wanted) {
  if (x.is_meta()) return meta_gradients(x, weight, lora_a, lora_b, wanted);
  const auto [want_x, want_weight, want_a, want_b, want_bias] = wanted;
  const Tensor none = at::empty({0}, x.options());
  Tensor grad_x = none, grad_weight = none, grad_a = none, grad_b = none, grad_bias = none;
  const Tensor grad =
      upstream.contiguous();  // once: an expanded one would be copied by each product
  const Tensor g = want_x || want_a ? to_rank(grad, lora_b) : none;
  if (want_x) grad_x = at::mm(grad, weight);
  Tensor seen = x;  // by A
  if (dropout > 0) {
    const Tensor wanted_x = want_a ? x : Tensor();
    if (want_x)
      seen =
          seeded_dropout_add_(grad_x, scaled_mm(g, lora_a, scale), wanted_x, dropout, seeds, slice);
    else if (want_a)
      seen = seeded_dropout(x, dropout, seeds, slice);
  } else if (want_x) {
    grad_x.addmm_(g, lora_a, /*beta=*/1, scale);
  }
  if (want_a) grad_a = scaled_mm(g.t(), seen, scale);
  // Transposed: the wide dimension in rows is what GEMMs are quick at.
  if (want_b) grad_b = scaled_mm(t.t(), grad, scale).t().contiguous();
  if (want_weight) grad_weight = at::mm(grad.t(), x);
  if (want_bias) grad_bias = grad.sum(0);
  return {grad_x, grad_weight, grad_a, grad_b, grad_bias};
}

}  // namespace cosmos::ops::driver
