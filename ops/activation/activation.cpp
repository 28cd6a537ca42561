// activation.h for the dispatcher: schemas, autograd, and the entry points that C++ calls.

#include "ops/activation/activation.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/activation/activation_driver.h"
#include "ops/activation/activation_kernel.h"
#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

struct ActivationFunction : torch::autograd::Function<ActivationFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& up,
                        int64_t kind) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op =
        operator_handle<decltype(driver::activation_forward)>("activation_forward");
    ctx->save_for_backward({x, up.value_or(Tensor())});
    ctx->saved_data["kind"] = kind;
    return op.call(x, up, kind);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("activation");
    const auto saved = ctx->get_saved_variables();
    const OptionalTensor up = saved[1].defined() ? OptionalTensor(saved[1]) : std::nullopt;
    static const auto op =
        operator_handle<decltype(driver::activation_backward)>("activation_backward");
    auto [grad_x, grad_up] = op.call(grads[0], saved[0], up, ctx->saved_data["kind"].toInt());
    return {grad_x, up ? grad_up : Tensor(), Tensor()};
  }
};

/// An operator's checked arguments.
struct Call {
  const Tensor& x;
  OptionalTensor up;
  int64_t kind;

  Tensor autograd() const { return ActivationFunction::apply(x, up, kind); }
  Tensor plain() const { return driver::activation_forward(x, up, kind); }
};

int64_t gelu_kind(const char* op, std::string_view approximate) {
  require(approximate == "none" || approximate == "tanh", op,
          ": approximate: expected none or tanh, got \"", approximate, "\"");
  return static_cast<int64_t>(approximate == "tanh" ? ActivationKind::kGeluTanh
                                                    : ActivationKind::kGelu);
}

Call gelu_call(const Tensor& x, std::string_view approximate) {
  dtype_of("gelu", "x", x);
  return {x, std::nullopt, gelu_kind("gelu", approximate)};
}

Call gated_call(const char* op, const Tensor& gate, const Tensor& up, int64_t kind) {
  dtype_of(op, "gate", gate);
  check_same(op, "gate", gate, "up", up);
  return {gate, up, kind};
}

Call swiglu_call(const Tensor& gate, const Tensor& up) {
  return gated_call("swiglu", gate, up, static_cast<int64_t>(ActivationKind::kSilu));
}

Call geglu_call(const Tensor& gate, const Tensor& up, std::string_view approximate) {
  return gated_call("geglu", gate, up, gelu_kind("geglu", approximate));
}

Tensor gelu_autograd(const Tensor& x, std::string_view approximate) {
  const Call call = gelu_call(x, approximate);
  return use_reference(x) ? reference::gelu(x, approximate) : call.autograd();
}

Tensor gelu_plain(const Tensor& x, std::string_view approximate) {
  return gelu_call(x, approximate).plain();
}

Tensor swiglu_autograd(const Tensor& gate, const Tensor& up) {
  const Call call = swiglu_call(gate, up);
  return use_reference(gate) ? reference::swiglu(gate, up) : call.autograd();
}

Tensor swiglu_plain(const Tensor& gate, const Tensor& up) {
  return swiglu_call(gate, up).plain();
}

Tensor geglu_autograd(const Tensor& gate, const Tensor& up, std::string_view approximate) {
  const Call call = geglu_call(gate, up, approximate);
  return use_reference(gate) ? reference::geglu(gate, up, approximate) : call.autograd();
}

Tensor geglu_plain(const Tensor& gate, const Tensor& up, std::string_view approximate) {
  return geglu_call(gate, up, approximate).plain();
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("gelu(Tensor x, str approximate='none') -> Tensor");
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
  m.def("geglu(Tensor gate, Tensor up, str approximate='none') -> Tensor");
  m.def("activation_forward(Tensor x, Tensor? up, int kind) -> Tensor");
  m.def("activation_backward(Tensor grad, Tensor x, Tensor? up, int kind) -> (Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("gelu", gelu_plain);
  m.impl("swiglu", swiglu_plain);
  m.impl("geglu", geglu_plain);
  m.impl("activation_forward", driver::activation_forward);
  m.impl("activation_backward", driver::activation_backward);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("gelu", gelu_autograd);
  m.impl("swiglu", swiglu_autograd);
  m.impl("geglu", geglu_autograd);
}

}  // namespace

Tensor gelu(const Tensor& x, std::string_view approximate) {
  static const auto op = operator_handle<decltype(gelu)>("gelu");
  return op.call(x, approximate);
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  static const auto op = operator_handle<decltype(swiglu)>("swiglu");
  return op.call(gate, up);
}

Tensor geglu(const Tensor& gate, const Tensor& up, std::string_view approximate) {
  static const auto op = operator_handle<decltype(geglu)>("geglu");
  return op.call(gate, up, approximate);
}

}  // namespace cosmos::ops
