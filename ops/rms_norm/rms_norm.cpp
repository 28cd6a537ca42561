// rms_norm.h for the dispatcher: schemas, autograd, and the entry points that C++ calls.

#include "ops/rms_norm/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/rms_norm/rms_norm_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Table = std::optional<Tensor>;

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Table& cos, const Table& sin, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(driver::rms_norm_forward)>("rms_norm_forward");
    ctx->save_for_backward({x, weight, cos.value_or(Tensor()), sin.value_or(Tensor())});
    ctx->saved_data["eps"] = eps;
    return op.call(x, weight, cos, sin, eps);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("rms_norm");
    const auto saved = ctx->get_saved_variables();
    const auto table = [&](int i) { return saved[i].defined() ? Table(saved[i]) : std::nullopt; };
    static const auto op =
        operator_handle<decltype(driver::rms_norm_backward)>("rms_norm_backward");
    const bool wanted = ctx->needs_input_grad(1);
    auto [x, weight] = op.call(grads[0], saved[0], saved[1], table(2), table(3),
                               ctx->saved_data["eps"].toDouble(), wanted);
    return {x, wanted ? weight : Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

void check_weight(const char* op, const Tensor& x, const Tensor& weight) {
  dtype_of(op, "x", x);
  dtype_of(op, "weight", weight);
  require(x.dim() >= 1 && x.sym_size(-1) > 0, op, ": x: expected [..., D] with D > 0, got ",
          describe(x));
  require(
      weight.dim() == 1 && weight.sym_size(0) == x.sym_size(-1) && weight.device() == x.device(),
      op, ": weight: expected [", x.sym_size(-1), "] on ", x.device(), " for x ", describe(x),
      ", got ", describe(weight));
}

void check_table(const Tensor& x, const char* name, const Tensor& table) {
  dtype_of("rms_norm_rope", name, table);
  require(table.dim() == 2 && table.sym_size(0) == x.sym_size(1) &&
              table.sym_size(1) * 2 == x.sym_size(3) && table.device() == x.device(),
          "rms_norm_rope: ", name, ": expected [", x.sym_size(1), ", ", x.sym_size(3) / 2, "] on ",
          x.device(), " for x ", describe(x), ", got ", describe(table));
  require(!table.requires_grad(), "rms_norm_rope: ", name, " requires grad, but tables get none");
}

/// Checked arguments in the types that kernels take; the casts belong to autograd.
struct Arguments {
  Tensor x, weight;
  Table cos, sin;
};

Arguments norm_arguments(const Tensor& x, const Tensor& weight) {
  check_weight("rms_norm", x, weight);
  return {x.dim() == 4 ? x : x.reshape_symint({1, -1, 1, x.sym_size(-1)}),
          weight.to(accumulate_dtype(x)).contiguous(),
          {},
          {}};
}

Arguments rope_arguments(const Tensor& x, const Tensor& weight, const Tensor& cos,
                         const Tensor& sin) {
  check_weight("rms_norm_rope", x, weight);
  require(x.dim() == 4 && x.sym_size(3) % 2 == 0,
          "rms_norm_rope: x: expected [B, L, heads, d] with even d, got ", describe(x));
  check_table(x, "cos", cos);
  check_table(x, "sin", sin);
  const at::ScalarType wide = accumulate_dtype(x);
  return {x, weight.to(wide).contiguous(), cos.to(wide).contiguous(), sin.to(wide).contiguous()};
}

Tensor rms_norm_autograd(const Tensor& x, const Tensor& weight, double eps) {
  const Arguments a = norm_arguments(x, weight);
  if (use_reference(x)) return reference::rms_norm(x, weight, eps);
  return RmsNormFunction::apply(a.x, a.weight, a.cos, a.sin, eps).view_symint(x.sym_sizes());
}

Tensor rms_norm_plain(const Tensor& x, const Tensor& weight, double eps) {
  const Arguments a = norm_arguments(x, weight);
  return driver::rms_norm_forward(a.x, a.weight, a.cos, a.sin, eps).view_symint(x.sym_sizes());
}

Tensor rms_norm_rope_autograd(const Tensor& x, const Tensor& weight, const Tensor& cos,
                              const Tensor& sin, double eps) {
  const Arguments a = rope_arguments(x, weight, cos, sin);
  if (use_reference(x)) return reference::rms_norm_rope(x, weight, cos, sin, eps);
  return RmsNormFunction::apply(a.x, a.weight, a.cos, a.sin, eps);
}

Tensor rms_norm_rope_plain(const Tensor& x, const Tensor& weight, const Tensor& cos,
                           const Tensor& sin, double eps) {
  const Arguments a = rope_arguments(x, weight, cos, sin);
  return driver::rms_norm_forward(a.x, a.weight, a.cos, a.sin, eps);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps=1e-06) -> Tensor");
  m.def(
      "rms_norm_rope(Tensor x, Tensor weight, Tensor cos, Tensor sin, float eps=1e-06) -> Tensor");
  m.def("rms_norm_forward(Tensor x, Tensor weight, Tensor? cos, Tensor? sin, float eps) -> Tensor");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor? cos, Tensor? sin, "
      "float eps, bool weight_grad) -> (Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("rms_norm", rms_norm_plain);
  m.impl("rms_norm_rope", rms_norm_rope_plain);
  m.impl("rms_norm_forward", driver::rms_norm_forward);
  m.impl("rms_norm_backward", driver::rms_norm_backward);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("rms_norm", rms_norm_autograd);
  m.impl("rms_norm_rope", rms_norm_rope_autograd);
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  static const auto op = operator_handle<decltype(rms_norm)>("rms_norm");
  return op.call(x, weight, eps);
}

Tensor rms_norm_rope(const Tensor& x, const Tensor& weight, const Tensor& cos, const Tensor& sin,
                     double eps) {
  static const auto op = operator_handle<decltype(rms_norm_rope)>("rms_norm_rope");
  return op.call(x, weight, cos, sin, eps);
}

}  // namespace cosmos::ops
