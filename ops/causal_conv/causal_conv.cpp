// causal_conv.h for the dispatcher: checks, schemas, autograd, and the entry point that C++ calls.

#include "ops/causal_conv/causal_conv.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/causal_conv/causal_conv_driver.h"
#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;

constexpr auto kName = "causal_conv";

void check_arguments(const Tensor& x, const Optional& past, const Tensor& weight,
                     const Optional& bias, at::IntArrayRef stride, int64_t space_pad,
                     int64_t front) {
  dtype_of(kName, "x", x);
  check_alike(kName, "x", x, "weight", weight);
  require(x.dim() == 5, kName, ": x: expected [B, T, H, W, C], got ", describe(x));
  require(weight.dim() == 5 && weight.sym_size(1) == x.sym_size(4), kName,
          ": weight: expected [O, ", x.sym_size(4), ", kt, kh, kw] for x ", describe(x), ", got ",
          describe(weight));
  if (bias) {
    check_alike(kName, "x", x, "bias", *bias);
    require(bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0), kName,
            ": bias: expected [", weight.sym_size(0), "] for weight ", describe(weight), ", got ",
            describe(*bias));
  }
  if (past) {
    check_alike(kName, "x", x, "past", *past);
    require(past->dim() == 5 && past->sym_size(0) == x.sym_size(0) &&
                past->sym_sizes().slice(2).equals(x.sym_sizes().slice(2)),
            kName, ": past: expected the batch and frame size of x ", describe(x), ", got ",
            describe(*past));
  }
  require(stride.size() == 3 && stride[0] > 0 && stride[1] > 0 && stride[2] > 0, kName,
          ": stride: expected three numbers of 1 or more, got ", stride);
  require(space_pad >= 0 && front >= 0, kName, ": expected space_pad and front of 0 or more, got ",
          space_pad, " and ", front);
  require(x.sym_size(2) + 2 * space_pad >= weight.sym_size(3) &&
              x.sym_size(3) + 2 * space_pad >= weight.sym_size(4),
          kName, ": the kernel ", weight.sym_size(3), " x ", weight.sym_size(4),
          " is larger than a padded frame of x ", describe(x));
}

struct CausalConvFunction : torch::autograd::Function<CausalConvFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Optional& bias, const Optional& past, at::IntArrayRef stride,
                        int64_t space_pad, int64_t front, bool repeat_first) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(driver::causal_conv)>(kName);
    ctx->save_for_backward({x, past.value_or(Tensor()), weight});
    ctx->saved_data["has_bias"] = bias.has_value();
    ctx->saved_data["stride"] = stride.vec();
    ctx->saved_data["space_pad"] = space_pad;
    ctx->saved_data["front"] = front;
    ctx->saved_data["repeat_first"] = repeat_first;
    return op.call(x, past, weight, bias, stride, space_pad, front, repeat_first);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward(kName);
    static const auto op =
        operator_handle<decltype(driver::causal_conv_backward)>("causal_conv_backward");
    const auto saved = ctx->get_saved_variables();
    const auto number = [&](const char* name) { return ctx->saved_data[name].toInt(); };
    const Optional past = saved[1].defined() ? Optional(saved[1]) : std::nullopt;
    // An optional input that was not given has no place among the inputs.
    const bool has_bias = ctx->saved_data["has_bias"].toBool();
    const std::array<bool, 4> wanted = {
        ctx->needs_input_grad(0), past && ctx->needs_input_grad(has_bias ? 3 : 2),
        ctx->needs_input_grad(1), has_bias && ctx->needs_input_grad(2)};
    const auto [x, of_past, weight, bias] = op.call(
        grads[0], saved[0], past, saved[2], ctx->saved_data["stride"].toIntVector(),
        number("space_pad"), number("front"), ctx->saved_data["repeat_first"].toBool(), wanted);
    variable_list out(8);
    if (wanted[0]) out[0] = x;
    if (wanted[2]) out[1] = weight;
    if (wanted[3]) out[2] = bias;
    if (wanted[1]) out[3] = of_past;
    return out;
  }
};

/// cuDNN has 3-D convolutions; so has oneDNN in the narrow types (1.2 to 1.8 times as fast as taps
/// with AMX). Products of kernels of 1 x 1 in space are as fast as taps, without the padded clip.
bool library_is_faster(const Tensor& x, const Tensor& weight) {
  const bool narrow = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  return x.is_cuda() || (narrow && (weight.sym_size(3) > 1 || weight.sym_size(4) > 1));
}

Tensor causal_conv_autograd(const Tensor& x, const Optional& past, const Tensor& weight,
                            const Optional& bias, at::IntArrayRef stride, int64_t space_pad,
                            int64_t front, bool repeat_first) {
  check_arguments(x, past, weight, bias, stride, space_pad, front);
  if (use_reference(x) || library_is_faster(x, weight))
    return reference::causal_conv(x, past, weight, bias, stride, space_pad, front, repeat_first);
  return CausalConvFunction::apply(x, weight, bias, past, stride, space_pad, front, repeat_first);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "causal_conv(Tensor x, Tensor? past, Tensor weight, Tensor? bias, int[3] stride=[1, 1, 1], "
      "int space_pad=0, int front=0, bool repeat_first=False) -> Tensor");
  m.def(
      "causal_conv_backward(Tensor grad, Tensor x, Tensor? past, Tensor weight, int[3] stride, "
      "int space_pad, int front, bool repeat_first, bool[4] wanted) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("causal_conv", driver::causal_conv);
  m.impl("causal_conv_backward", driver::causal_conv_backward);
}

TORCH_LIBRARY_IMPL(cosmos, CPU, m) {
  register_devices(m);
}
TORCH_LIBRARY_IMPL(cosmos, Meta, m) {
  register_devices(m);
}
TORCH_LIBRARY_IMPL(cosmos, CUDA, m) {  // without gradients, too
  m.impl("causal_conv", reference::causal_conv);
}
TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("causal_conv", causal_conv_autograd);
}

}  // namespace

Tensor causal_conv(const Tensor& x, const Optional& past, const Tensor& weight,
                   const Optional& bias, at::IntArrayRef stride, int64_t space_pad, int64_t front,
                   bool repeat_first) {
  static const auto op = operator_handle<decltype(causal_conv)>(kName);
  return op.call(x, past, weight, bias, stride, space_pad, front, repeat_first);
}

}  // namespace cosmos::ops
