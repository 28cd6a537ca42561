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
using Optional = std::optional<Tensor>;

Tensor call_forward(const Tensor& x, const Optional& weight, const Optional& cos,
                    const Optional& sin, double eps, bool interleaved) {
  static const auto op = operator_handle<decltype(driver::rms_norm_forward)>("rms_norm_forward");
  return op.call(x, weight, cos, sin, eps, interleaved);
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Optional& weight,
                        const Optional& cos, const Optional& sin, double eps, bool interleaved) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({weight ? x : Tensor(), weight.value_or(Tensor()),
                            cos.value_or(Tensor()), sin.value_or(Tensor())});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["interleaved"] = interleaved;
    return call_forward(x, weight, cos, sin, eps, interleaved);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("rms_norm");
    const auto saved = ctx->get_saved_variables();
    const auto table = [&](int i) {
      return saved[i].defined() ? Optional(saved[i]) : std::nullopt;
    };
    const double eps = ctx->saved_data["eps"].toDouble();
    const bool interleaved = ctx->saved_data["interleaved"].toBool();
    if (!saved[1].defined()) {  // a rotation alone is taken back by turning the other way
      const Tensor x = call_forward(grads[0], {}, saved[2], saved[3].neg(), eps, interleaved);
      return {x, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    }
    static const auto op =
        operator_handle<decltype(driver::rms_norm_backward)>("rms_norm_backward");
    const bool wanted = ctx->needs_input_grad(1);
    auto [x, weight] =
        op.call(grads[0], saved[0], saved[1], table(2), table(3), eps, interleaved, wanted);
    return {x, wanted ? weight : Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

void check_rows(const char* op, const Tensor& x, const Optional& weight) {
  dtype_of(op, "x", x);
  require(x.dim() >= 1 && x.sym_size(-1) > 0, op, ": x: expected [..., D] with D > 0, got ",
          describe(x));
  if (!weight) return;
  dtype_of(op, "weight", *weight);
  require(
      weight->dim() == 1 && weight->sym_size(0) == x.sym_size(-1) && weight->device() == x.device(),
      op, ": weight: expected [", x.sym_size(-1), "] on ", x.device(), " for x ", describe(x),
      ", got ", describe(*weight));
}

void check_table(const Tensor& x, const char* name, const Tensor& table) {
  dtype_of("rms_norm_rope", name, table);
  const bool batched = table.dim() == 3 && table.sym_size(0) == x.sym_size(0);
  require((table.dim() == 2 || batched) && table.sym_size(-2) == x.sym_size(1) &&
              table.sym_size(-1) > 0 && table.sym_size(-1) * 2 <= x.sym_size(3) &&
              table.device() == x.device(),
          "rms_norm_rope: ", name, ": expected [", x.sym_size(1), ", ", x.sym_size(3) / 2,
          "], fewer columns, or one for each of ", x.sym_size(0), " samples, on ", x.device(),
          " for x ", describe(x), ", got ", describe(table));
  require(!table.requires_grad(), "rms_norm_rope: ", name, " requires grad, but tables get none");
}

/// Checked arguments in the types that kernels take; the casts belong to autograd.
struct Arguments {
  Tensor x;
  Optional weight, cos, sin;
};

Arguments norm_arguments(const Tensor& x, const Tensor& weight) {
  check_rows("rms_norm", x, weight);
  return {x.dim() == 4 ? x : x.reshape_symint({1, -1, 1, x.sym_size(-1)}),
          weight.to(accumulate_dtype(x)).contiguous(),
          {},
          {}};
}

Arguments rope_arguments(const Tensor& x, const Optional& weight, const Tensor& cos,
                         const Tensor& sin) {
  check_rows("rms_norm_rope", x, weight);
  require(x.dim() == 4 && x.sym_size(3) > 1,
          "rms_norm_rope: x: expected [B, L, heads, d] with d of 2 or more, got ", describe(x));
  check_table(x, "cos", cos);
  check_table(x, "sin", sin);
  require(cos.sym_sizes() == sin.sym_sizes(), "rms_norm_rope: sin: expected ", cos.sym_sizes(),
          " as cos, got ", describe(sin));
  const at::ScalarType wide = accumulate_dtype(x);
  return {x, weight ? Optional(weight->to(wide).contiguous()) : std::nullopt,
          cos.to(wide).contiguous(), sin.to(wide).contiguous()};
}

Tensor rms_norm_autograd(const Tensor& x, const Tensor& weight, double eps) {
  const Arguments a = norm_arguments(x, weight);
  if (use_reference(x)) return reference::rms_norm(x, weight, eps);
  return RmsNormFunction::apply(a.x, a.weight, a.cos, a.sin, eps, false).view_symint(x.sym_sizes());
}

Tensor rms_norm_plain(const Tensor& x, const Tensor& weight, double eps) {
  const Arguments a = norm_arguments(x, weight);
  return driver::rms_norm_forward(a.x, a.weight, a.cos, a.sin, eps, false)
      .view_symint(x.sym_sizes());
}

Tensor rms_norm_rope_autograd(const Tensor& x, const Optional& weight, const Tensor& cos,
                              const Tensor& sin, double eps, bool interleaved) {
  const Arguments a = rope_arguments(x, weight, cos, sin);
  if (use_reference(x)) return reference::rms_norm_rope(x, weight, cos, sin, eps, interleaved);
  return RmsNormFunction::apply(a.x, a.weight, a.cos, a.sin, eps, interleaved);
}

Tensor rms_norm_rope_plain(const Tensor& x, const Optional& weight, const Tensor& cos,
                           const Tensor& sin, double eps, bool interleaved) {
  const Arguments a = rope_arguments(x, weight, cos, sin);
  return driver::rms_norm_forward(a.x, a.weight, a.cos, a.sin, eps, interleaved);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps=1e-06) -> Tensor");
  m.def(
      "rms_norm_rope(Tensor x, Tensor? weight, Tensor cos, Tensor sin, float eps=1e-06, "
      "bool interleaved=False) -> Tensor");
  m.def(
      "rms_norm_forward(Tensor x, Tensor? weight, Tensor? cos, Tensor? sin, float eps, "
      "bool interleaved) -> Tensor");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor? cos, Tensor? sin, "
      "float eps, bool interleaved, bool weight_grad) -> (Tensor, Tensor)");
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

Tensor rms_norm_rope(const Tensor& x, const Optional& weight, const Tensor& cos, const Tensor& sin,
                     double eps, bool interleaved) {
  static const auto op = operator_handle<decltype(rms_norm_rope)>("rms_norm_rope");
  return op.call(x, weight, cos, sin, eps, interleaved);
}

}  // namespace cosmos::ops
