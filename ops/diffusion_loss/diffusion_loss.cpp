// diffusion_loss.h for the dispatcher: checks, schemas, autograd, and the entry points that C++
// calls.

#include "ops/diffusion_loss/diffusion_loss.h"

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/diffusion_loss/diffusion_loss_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeDtype = std::optional<at::ScalarType>;

at::ScalarType wide_dtype(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// Numbers per clip [B] or per frame [B, T] as [B, T] in the accumulate type.
Tensor frame_numbers(const char* op, const char* name, const Tensor& numbers, const Tensor& x0,
                     at::ScalarType wide) {
  dtype_of(op, name, numbers);
  const c10::SymInt batch = x0.sym_size(0), frames = x0.sym_size(2);
  require(numbers.device() == x0.device() && (numbers.dim() == 1 || numbers.dim() == 2) &&
              numbers.sym_size(0) == batch && (numbers.dim() == 1 || numbers.sym_size(1) == frames),
          op, ": ", name, ": expected [", batch, "] or [", batch, ", ", frames, "] on ",
          x0.device(), " for latents ", describe(x0), ", got ", describe(numbers));
  require(!numbers.requires_grad(), op, ": ", name, " requires grad, but it gets none");
  const Tensor per_frame =
      numbers.dim() == 1 ? numbers.unsqueeze(1).expand_symint({batch, frames}) : numbers;
  return per_frame.to(wide).contiguous();
}

/// Latents that a kernel reads beside `dtype`: in that or in the accumulate type.
Tensor readable(const Tensor& x, at::ScalarType dtype) {
  return x.scalar_type() == dtype ? x : x.to(wide_dtype(dtype));
}

/// Checked arguments in the types that kernels take; the casts belong to autograd.
struct Arguments {
  Tensor x0, noise, x0_scale, noise_scale;
  Arguments(const char* op, const Tensor& x, const Tensor& n, const Tensor& p, const Tensor& q,
            at::ScalarType dtype) {
    dtype_of(op, "x0", x);
    require(x.dim() == 5, op, ": x0: expected [B, C, T, H, W], got ", describe(x));
    check_same(op, "x0", x, "noise", n);
    x0 = readable(x, dtype);
    noise = readable(n, dtype);
    x0_scale = frame_numbers(op, "x0_scale", p, x, wide_dtype(dtype));
    noise_scale = frame_numbers(op, "noise_scale", q, x, wide_dtype(dtype));
  }
};

at::ScalarType input_dtype(const Tensor& x0, MaybeDtype dtype) {
  require(!dtype || *dtype == at::kFloat || *dtype == at::kDouble || *dtype == at::kBFloat16 ||
              *dtype == at::kHalf,
          "diffusion_input: dtype: expected float32, bfloat16, float16 or float64, got ",
          c10::toString(dtype.value_or(at::kFloat)));
  return dtype.value_or(x0.scalar_type());
}

struct LossArguments : Arguments {
  Tensor weight;
  LossArguments(const Tensor& output, const Tensor& x, const Tensor& n, const Tensor& p,
                const Tensor& q, const Tensor& w)
      : Arguments("diffusion_loss", x, n, p, q, output.scalar_type()),
        weight(frame_numbers("diffusion_loss", "weight", w, x, wide_dtype(output.scalar_type()))) {
    dtype_of("diffusion_loss", "output", output);
    require(output.sym_sizes() == x.sym_sizes() && output.device() == x.device(),
            "diffusion_loss: output: expected ", x.sym_sizes(), " on ", x.device(), " as x0, got ",
            describe(output));
    require(!x.requires_grad() && !n.requires_grad(),
            "diffusion_loss: ", x.requires_grad() ? "x0" : "noise",
            " requires grad, but it gets none");
  }
};

struct DiffusionInputFunction : torch::autograd::Function<DiffusionInputFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x0, const Tensor& noise,
                        const Tensor& x0_scale, const Tensor& noise_scale, MaybeDtype dtype) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(diffusion_input)>("diffusion_input");
    ctx->save_for_backward({x0_scale, noise_scale});
    ctx->saved_data["latents"] = x0.scalar_type();
    return op.call(x0, noise, x0_scale, noise_scale, dtype);
  }

  // Latents are data in every recipe, so this is ATen's: two scalings, only where wanted.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto scales = ctx->get_saved_variables();
    const auto scaled = [&](std::size_t i) {
      if (!ctx->needs_input_grad(i)) return Tensor();
      const Tensor planes = scales[i].unsqueeze(1).unsqueeze(3).unsqueeze(4);  // [B, 1, T, 1, 1]
      return (grads[0] * planes).to(ctx->saved_data["latents"].toScalarType());
    };
    return {scaled(0), scaled(1), Tensor(), Tensor(), Tensor()};
  }
};

struct DiffusionLossFunction : torch::autograd::Function<DiffusionLossFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& output, const Tensor& x0,
                        const Tensor& noise, const Tensor& x0_scale, const Tensor& noise_scale,
                        const Tensor& weight) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(diffusion_loss)>("diffusion_loss");
    ctx->save_for_backward({output, x0, noise, x0_scale, noise_scale, weight});
    return op.call(output, x0, noise, x0_scale, noise_scale, weight);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("diffusion_loss");
    static const auto op =
        operator_handle<decltype(driver::diffusion_loss_backward)>("diffusion_loss_backward");
    const auto s = ctx->get_saved_variables();
    return {op.call(grads[0], s[0], s[1], s[2], s[3], s[4], s[5]),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

Tensor diffusion_input_autograd(const Tensor& x0, const Tensor& noise, const Tensor& x0_scale,
                                const Tensor& noise_scale, MaybeDtype dtype) {
  const at::ScalarType out = input_dtype(x0, dtype);
  const Arguments a("diffusion_input", x0, noise, x0_scale, noise_scale, out);
  if (use_reference(a.x0))
    return reference::diffusion_input(a.x0, a.noise, a.x0_scale, a.noise_scale, out);
  return DiffusionInputFunction::apply(a.x0, a.noise, a.x0_scale, a.noise_scale, MaybeDtype(out));
}

Tensor diffusion_input_plain(const Tensor& x0, const Tensor& noise, const Tensor& x0_scale,
                             const Tensor& noise_scale, MaybeDtype dtype) {
  const at::ScalarType out = input_dtype(x0, dtype);
  const Arguments a("diffusion_input", x0, noise, x0_scale, noise_scale, out);
  return driver::diffusion_input(a.x0, a.noise, a.x0_scale, a.noise_scale, out);
}

Tensor diffusion_loss_autograd(const Tensor& output, const Tensor& x0, const Tensor& noise,
                               const Tensor& x0_scale, const Tensor& noise_scale,
                               const Tensor& weight) {
  const LossArguments a(output, x0, noise, x0_scale, noise_scale, weight);
  if (use_reference(output))
    return reference::diffusion_loss(output, a.x0, a.noise, a.x0_scale, a.noise_scale, a.weight);
  return DiffusionLossFunction::apply(output, a.x0, a.noise, a.x0_scale, a.noise_scale, a.weight);
}

Tensor diffusion_loss_plain(const Tensor& output, const Tensor& x0, const Tensor& noise,
                            const Tensor& x0_scale, const Tensor& noise_scale,
                            const Tensor& weight) {
  const LossArguments a(output, x0, noise, x0_scale, noise_scale, weight);
  return driver::diffusion_loss(output, a.x0, a.noise, a.x0_scale, a.noise_scale, a.weight);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "diffusion_input(Tensor x0, Tensor noise, Tensor x0_scale, Tensor noise_scale, "
      "ScalarType? dtype=None) -> Tensor");
  m.def(
      "diffusion_loss(Tensor output, Tensor x0, Tensor noise, Tensor x0_scale, Tensor noise_scale, "
      "Tensor weight) -> Tensor");
  m.def(
      "diffusion_loss_backward(Tensor grad, Tensor output, Tensor x0, Tensor noise, "
      "Tensor x0_scale, Tensor noise_scale, Tensor weight) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("diffusion_input", diffusion_input_plain);
  m.impl("diffusion_loss", diffusion_loss_plain);
  m.impl("diffusion_loss_backward", driver::diffusion_loss_backward);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("diffusion_input", diffusion_input_autograd);
  m.impl("diffusion_loss", diffusion_loss_autograd);
}

}  // namespace

Tensor diffusion_input(const Tensor& x0, const Tensor& noise, const Tensor& x0_scale,
                       const Tensor& noise_scale, MaybeDtype dtype) {
  static const auto op = operator_handle<decltype(diffusion_input)>("diffusion_input");
  return op.call(x0, noise, x0_scale, noise_scale, dtype);
}

Tensor diffusion_loss(const Tensor& output, const Tensor& x0, const Tensor& noise,
                      const Tensor& x0_scale, const Tensor& noise_scale, const Tensor& weight) {
  static const auto op = operator_handle<decltype(diffusion_loss)>("diffusion_loss");
  return op.call(output, x0, noise, x0_scale, noise_scale, weight);
}

}  // namespace cosmos::ops
