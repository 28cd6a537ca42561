// adaln.h for the dispatcher: schemas, autograd, and the entry points that C++ calls.

#include "ops/norm/adaln.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/norm/adaln_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct AdaLnFunction : torch::autograd::Function<AdaLnFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& scale,
                        const Tensor& shift, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(driver::adaln_forward)>("adaln_forward");
    auto [normed, mean, rstd] = op.call(x, scale, shift, eps);
    ctx->save_for_backward({x, scale, mean, rstd});
    return normed;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("adaln");
    const auto saved = ctx->get_saved_variables();
    const bool modulation = ctx->needs_input_grad(1) || ctx->needs_input_grad(2);
    static const auto op = operator_handle<decltype(driver::adaln_backward)>("adaln_backward");
    auto [x, scale, shift] = op.call(grads[0], saved[0], saved[1], saved[2], saved[3], modulation);
    if (!modulation) return {x, Tensor(), Tensor(), Tensor()};
    return {x, scale, shift, Tensor()};
  }
};

struct GatedResidualFunction : torch::autograd::Function<GatedResidualFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& y,
                        const Tensor& gate) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op =
        operator_handle<decltype(driver::gated_residual_forward)>("gated_residual_forward");
    ctx->save_for_backward({y, gate});
    return op.call(x, y, gate);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("gated_residual");
    const auto saved = ctx->get_saved_variables();
    static const auto op =
        operator_handle<decltype(driver::gated_residual_backward)>("gated_residual_backward");
    auto [y, gate] = op.call(grads[0], saved[0], saved[1], ctx->needs_input_grad(2));
    return {grads[0], y, ctx->needs_input_grad(2) ? gate : Tensor()};
  }
};

struct GatedResidualAdaLnFunction : torch::autograd::Function<GatedResidualAdaLnFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& y,
                               const Tensor& gate, const Tensor& scale, const Tensor& shift,
                               double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(driver::gated_residual_adaln_forward)>(
        "gated_residual_adaln_forward");
    auto [sum, normed, mean, rstd] = op.call(x, y, gate, scale, shift, eps);
    ctx->save_for_backward({sum, y, gate, scale, mean, rstd});
    ctx->set_materialize_grads(false);
    return {sum, normed};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("gated_residual_adaln");
    const auto saved = ctx->get_saved_variables();
    const Tensor &sum = saved[0], &y = saved[1], &gate = saved[2], &scale = saved[3];
    const bool modulation =
        ctx->needs_input_grad(2) || ctx->needs_input_grad(3) || ctx->needs_input_grad(4);
    if (!grads[0].defined() && !grads[1].defined()) return variable_list(6);
    if (!grads[1].defined()) {  // nobody used normed: the gated residual alone
      static const auto op =
          operator_handle<decltype(driver::gated_residual_backward)>("gated_residual_backward");
      auto [grad_y, grad_gate] = op.call(grads[0], y, gate, modulation);
      return {grads[0], grad_y, modulation ? grad_gate : Tensor(), Tensor(), Tensor(), Tensor()};
    }
    static const auto op = operator_handle<decltype(driver::gated_residual_adaln_backward)>(
        "gated_residual_adaln_backward");
    const auto grad_sum = grads[0].defined() ? std::optional<Tensor>(grads[0]) : std::nullopt;
    auto [grad_x, grad_y, grad_gate, grad_scale, grad_shift] =
        op.call(grad_sum, grads[1], sum, y, gate, scale, saved[4], saved[5], modulation);
    if (!modulation) return {grad_x, grad_y, Tensor(), Tensor(), Tensor(), Tensor()};
    return {grad_x, grad_y, grad_gate, grad_scale, grad_shift, Tensor()};
  }
};

/// Shapes checked and leading sizes of 1 widened, for one operator's modulation.
struct Expanded {
  Tensor gate, scale, shift;
};

Expanded expand(const char* op, const Tensor& x, const Tensor& gate, const Tensor& scale,
                const Tensor& shift) {
  Expanded e;
  if (gate.defined()) e.gate = driver::expand_modulation(op, x, "gate", gate);
  if (scale.defined()) e.scale = driver::expand_modulation(op, x, "scale", scale);
  if (shift.defined()) {
    e.shift = driver::expand_modulation(op, x, "shift", shift);
    check_same(op, "scale", e.scale, "shift", e.shift);
  }
  if (gate.defined() && scale.defined()) check_same(op, "scale", e.scale, "gate", e.gate);
  return e;
}

Tensor adaln_autograd(const Tensor& x, const Tensor& scale, const Tensor& shift, double eps) {
  const Expanded e = expand("adaln", x, {}, scale, shift);
  if (use_reference(x)) return reference::adaln(x, e.scale, e.shift, eps);
  return AdaLnFunction::apply(x, e.scale, e.shift, eps);
}

Tensor adaln_plain(const Tensor& x, const Tensor& scale, const Tensor& shift, double eps) {
  const Expanded e = expand("adaln", x, {}, scale, shift);
  return std::get<0>(driver::adaln_forward(x, e.scale, e.shift, eps));
}

Tensor gated_residual_autograd(const Tensor& x, const Tensor& y, const Tensor& gate) {
  check_same("gated_residual", "x", x, "y", y);
  const Expanded e = expand("gated_residual", x, gate, {}, {});
  if (use_reference(x)) return reference::gated_residual(x, y, e.gate);
  return GatedResidualFunction::apply(x, y, e.gate);
}

Tensor gated_residual_plain(const Tensor& x, const Tensor& y, const Tensor& gate) {
  check_same("gated_residual", "x", x, "y", y);
  return driver::gated_residual_forward(x, y, expand("gated_residual", x, gate, {}, {}).gate);
}

std::tuple<Tensor, Tensor> gated_residual_adaln_autograd(const Tensor& x, const Tensor& y,
                                                         const Tensor& gate, const Tensor& scale,
                                                         const Tensor& shift, double eps) {
  check_same("gated_residual_adaln", "x", x, "y", y);
  const Expanded e = expand("gated_residual_adaln", x, gate, scale, shift);
  if (use_reference(x)) {
    const Tensor sum = reference::gated_residual(x, y, e.gate);
    return {sum, reference::adaln(sum, e.scale, e.shift, eps)};
  }
  const variable_list out = GatedResidualAdaLnFunction::apply(x, y, e.gate, e.scale, e.shift, eps);
  return {out[0], out[1]};
}

std::tuple<Tensor, Tensor> gated_residual_adaln_plain(const Tensor& x, const Tensor& y,
                                                      const Tensor& gate, const Tensor& scale,
                                                      const Tensor& shift, double eps) {
  check_same("gated_residual_adaln", "x", x, "y", y);
  const Expanded e = expand("gated_residual_adaln", x, gate, scale, shift);
  auto [sum, normed, mean, rstd] =
      driver::gated_residual_adaln_forward(x, y, e.gate, e.scale, e.shift, eps);
  return {sum, normed};
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("adaln(Tensor x, Tensor scale, Tensor shift, float eps=1e-06) -> Tensor");
  m.def(
      "adaln_forward(Tensor x, Tensor scale, Tensor shift, float eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "adaln_backward(Tensor grad, Tensor x, Tensor scale, Tensor mean, Tensor rstd, "
      "bool modulation) -> (Tensor, Tensor, Tensor)");
  m.def("gated_residual(Tensor x, Tensor y, Tensor gate) -> Tensor");
  m.def("gated_residual_forward(Tensor x, Tensor y, Tensor gate) -> Tensor");
  m.def(
      "gated_residual_backward(Tensor grad, Tensor y, Tensor gate, bool modulation) "
      "-> (Tensor, Tensor)");
  m.def(
      "gated_residual_adaln(Tensor x, Tensor y, Tensor gate, Tensor scale, Tensor shift, "
      "float eps=1e-06) -> (Tensor, Tensor)");
  m.def(
      "gated_residual_adaln_forward(Tensor x, Tensor y, Tensor gate, Tensor scale, Tensor shift, "
      "float eps) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "gated_residual_adaln_backward(Tensor? grad_sum, Tensor grad_normed, Tensor sum, Tensor y, "
      "Tensor gate, Tensor scale, Tensor mean, Tensor rstd, bool modulation) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("adaln", adaln_plain);
  m.impl("adaln_forward", driver::adaln_forward);
  m.impl("adaln_backward", driver::adaln_backward);
  m.impl("gated_residual", gated_residual_plain);
  m.impl("gated_residual_forward", driver::gated_residual_forward);
  m.impl("gated_residual_backward", driver::gated_residual_backward);
  m.impl("gated_residual_adaln", gated_residual_adaln_plain);
  m.impl("gated_residual_adaln_forward", driver::gated_residual_adaln_forward);
  m.impl("gated_residual_adaln_backward", driver::gated_residual_adaln_backward);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("adaln", adaln_autograd);
  m.impl("gated_residual", gated_residual_autograd);
  m.impl("gated_residual_adaln", gated_residual_adaln_autograd);
}

}  // namespace

Tensor adaln(const Tensor& x, const Tensor& scale, const Tensor& shift, double eps) {
  static const auto op = operator_handle<decltype(adaln)>("adaln");
  return op.call(x, scale, shift, eps);
}

Tensor gated_residual(const Tensor& x, const Tensor& y, const Tensor& gate) {
  static const auto op = operator_handle<decltype(gated_residual)>("gated_residual");
  return op.call(x, y, gate);
}

std::tuple<Tensor, Tensor> gated_residual_adaln(const Tensor& x, const Tensor& y,
                                                const Tensor& gate, const Tensor& scale,
                                                const Tensor& shift, double eps) {
  static const auto op = operator_handle<decltype(gated_residual_adaln)>("gated_residual_adaln");
  return op.call(x, y, gate, scale, shift, eps);
}

}  // namespace cosmos::ops
