// channel_norm.h for the dispatcher: schemas, autograd, and the entry point that C++ calls.

#include "ops/channel_norm/channel_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/channel_norm/channel_norm_driver.h"
#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNormSiluFunction : torch::autograd::Function<RmsNormSiluFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& gamma, double eps,
                        bool activation) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op =
        operator_handle<decltype(driver::channel_norm_forward)>("rms_norm_silu_forward");
    ctx->save_for_backward({x, gamma});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["activation"] = activation;
    return op.call(x, gamma, eps, activation);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("rms_norm_silu");
    static const auto op =
        operator_handle<decltype(driver::channel_norm_backward)>("rms_norm_silu_backward");
    const auto saved = ctx->get_saved_variables();
    const bool wanted = ctx->needs_input_grad(1);
    auto [x, gamma] = op.call(grads[0], saved[0], saved[1], ctx->saved_data["eps"].toDouble(),
                              ctx->saved_data["activation"].toBool(), wanted);
    return {x, wanted ? gamma : Tensor(), Tensor(), Tensor()};
  }
};

void check_arguments(const Tensor& x, const Tensor& gamma) {
  dtype_of("rms_norm_silu", "x", x);
  dtype_of("rms_norm_silu", "gamma", gamma);
  require(x.dim() >= 2 && x.sym_size(1) > 0,
          "rms_norm_silu: x: expected [B, C, ...] with C > 0, got ", describe(x));
  require(gamma.dim() == 1 && gamma.sym_size(0) == x.sym_size(1) && gamma.device() == x.device(),
          "rms_norm_silu: gamma: expected [", x.sym_size(1), "] on ", x.device(), " for x ",
          describe(x), ", got ", describe(gamma));
}

Tensor rms_norm_silu_autograd(const Tensor& x, const Tensor& gamma, double eps, bool activation) {
  check_arguments(x, gamma);
  if (use_reference(x)) return reference::rms_norm_silu(x, gamma, eps, activation);
  return RmsNormSiluFunction::apply(driver::in_layout(x),
                                    gamma.to(accumulate_dtype(x)).contiguous(), eps, activation);
}

Tensor rms_norm_silu_plain(const Tensor& x, const Tensor& gamma, double eps, bool activation) {
  check_arguments(x, gamma);
  if (use_reference(x)) return reference::rms_norm_silu(x, gamma, eps, activation);
  return driver::channel_norm_forward(x, gamma.to(accumulate_dtype(x)).contiguous(), eps,
                                      activation);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("rms_norm_silu(Tensor x, Tensor gamma, float eps=1e-12, bool activation=True) -> Tensor");
  m.def("rms_norm_silu_forward(Tensor x, Tensor gamma, float eps, bool activation) -> Tensor");
  m.def(
      "rms_norm_silu_backward(Tensor grad, Tensor x, Tensor gamma, float eps, bool activation, "
      "bool gamma_grad) -> (Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("rms_norm_silu", rms_norm_silu_plain);
  m.impl("rms_norm_silu_forward", driver::channel_norm_forward);
  m.impl("rms_norm_silu_backward", driver::channel_norm_backward);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("rms_norm_silu", rms_norm_silu_autograd);
}

}  // namespace

Tensor rms_norm_silu(const Tensor& x, const Tensor& gamma, double eps, bool activation) {
  static const auto op = operator_handle<decltype(rms_norm_silu)>("rms_norm_silu");
  return op.call(x, gamma, eps, activation);
}

}  // namespace cosmos::ops
