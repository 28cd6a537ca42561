#include "ops/fp8/fp8_delayed.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "ops/core/check.h"
#include "ops/core/registry.h"

namespace cosmos::ops {
namespace {

using at::Tensor;

void check_state(const char* op, const Fp8Delayed& s) {
  require(s.scale.defined() && s.amax_history.defined() && s.scale.scalar_type() == at::kFloat &&
              s.amax_history.scalar_type() == at::kFloat && s.scale.dim() >= 1 &&
              s.scale.sym_size(-1) == 3 && s.amax_history.dim() == s.scale.dim() + 1 &&
              s.amax_history.sym_sizes().slice(0, s.scale.dim()) == s.scale.sym_sizes() &&
              s.amax_history.sym_size(-1) > 0 && s.amax_history.device() == s.scale.device(),
          op, ": expected scale float32 [..., 3] and amax_history float32 [..., 3, length], got ",
          describe(s.scale), " and ", describe(s.amax_history));
}

void advance(const Tensor& scale, const Tensor& amax_history, at::ScalarType gradient,
             bool power_of_two) {
  const at::NoGradGuard no_grad;
  check_state("fp8_delayed_advance", {scale, amax_history});
  require(gradient == at::kFloat8_e4m3fn || gradient == at::kFloat8_e5m2,
          "fp8_delayed_advance: gradient: expected float8_e4m3fn or float8_e5m2, got ",
          c10::toString(gradient));
  const double operand = fp8_largest(at::kFloat8_e4m3fn);
  const Tensor max = at::tensor({operand, operand, fp8_largest(gradient)}, scale.options());
  const Tensor finite =
      at::where(at::isfinite(amax_history), amax_history, at::zeros_like(amax_history));
  const Tensor amax = finite.amax(-1);
  scale.copy_(at::where(amax > 0, reference::fp8_scale(amax, max, power_of_two), scale));
  amax_history.copy_(amax_history.roll(1, -1));
  amax_history.select(-1, 0).zero_();
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "fp8_delayed_advance(Tensor(a!) scale, Tensor(b!) amax_history, ScalarType gradient, "
      "bool power_of_two=False) -> ()");
}

void register_devices(torch::Library& m) {
  m.impl("fp8_delayed_advance", advance);
}

COSMOS_REGISTER_DEVICES(register_devices)

}  // namespace

std::optional<Tensor> fp8_delayed_scale(const Fp8Delayed& state, Fp8Operand which) {
  if (!state.scale.defined()) return std::nullopt;
  return state.scale.select(-1, static_cast<int64_t>(which));
}

void fp8_delayed_record(const Fp8Delayed& state, Fp8Operand which, const Tensor& amax) {
  if (!state.amax_history.defined()) return;
  const Tensor newest = state.amax_history.select(-2, static_cast<int64_t>(which)).select(-1, 0);
  newest.copy_(at::maximum(newest, amax));
}

void fp8_delayed_check(const char* op, const Fp8Delayed& state, const Tensor& x) {
  if (!state.scale.defined())
    return fp8_delayed_check(op, {state.amax_history.select(-1, 0), state.amax_history}, x);
  check_state(op, state);
  require(state.scale.dim() == 1 && state.scale.device() == x.device(), op,
          ": expected one layer's scale [3] on ", x.device(), ", got ", describe(state.scale));
}

Fp8Delayed fp8_delayed(const Tensor& like, int64_t layers, int64_t length) {
  require(layers > 0 && length > 0, "fp8_delayed: expected layers and length above 0, got ", layers,
          " and ", length);
  const auto floats = like.options().dtype(at::kFloat).requires_grad(false);
  return {at::ones({layers, 3}, floats), at::zeros({layers, 3, length}, floats)};
}

void fp8_delayed_advance(const Fp8Delayed& state, const Fp8Recipe& recipe) {
  static const auto op = operator_handle<decltype(advance)>("fp8_delayed_advance");
  op.call(state.scale, state.amax_history, recipe.gradient, recipe.power_of_two);
}

}  // namespace cosmos::ops
