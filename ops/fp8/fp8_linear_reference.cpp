#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/fp8/fp8_linear.h"

namespace cosmos::ops::reference {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// x, or x^T, rounded to what its quantised form stands for.
Tensor rounded(const Tensor& x, at::ScalarType format, const Fp8Recipe& r, bool weight,
               bool transposed, at::ScalarType wide) {
  Fp8Granularity granularity = Fp8Granularity::kTensor;
  if (r.scaling == Fp8Scaling::kRow) granularity = Fp8Granularity::kRow;
  if (r.scaling == Fp8Scaling::kBlock)
    granularity = weight ? Fp8Granularity::k128x128 : Fp8Granularity::k1x128;
  const Fp8Tensor q = fp8_quantize(x, {format, granularity, r.power_of_two}, {}, transposed);
  const Tensor one = q.scale.new_ones({});
  // Multiplied in the wide type, where dequantising would round to float32.
  if (granularity == Fp8Granularity::kTensor || granularity == Fp8Granularity::kRow)
    return fp8_dequantize(q.values, one, wide) * q.scale.to(wide);
  return fp8_dequantize(q.values, q.scale, wide);
}

/// Rounding has no derivative; this gives the formulas of fp8_linear.h.
struct Formula : torch::autograd::Function<Formula> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, const Fp8Recipe& r) {
    ctx->save_for_backward({x, weight, bias.value_or(Tensor())});
    ctx->saved_data["scaling"] = static_cast<int64_t>(r.scaling);
    ctx->saved_data["gradient"] = static_cast<int64_t>(r.gradient);
    ctx->saved_data["power_of_two"] = r.power_of_two;
    const at::ScalarType wide = accumulate_dtype(x), e4m3 = at::kFloat8_e4m3fn;
    const Tensor y = at::mm(rounded(x, e4m3, r, false, false, wide),
                            rounded(weight, e4m3, r, true, false, wide).t());
    return (bias ? y + bias->to(wide) : y).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &dy = grads[0];
    Fp8Recipe r;
    r.scaling = static_cast<Fp8Scaling>(ctx->saved_data["scaling"].toInt());
    r.gradient = static_cast<at::ScalarType>(ctx->saved_data["gradient"].toInt());
    r.power_of_two = ctx->saved_data["power_of_two"].toBool();
    const at::ScalarType wide = accumulate_dtype(x), e4m3 = at::kFloat8_e4m3fn;
    const Tensor dx = at::mm(rounded(dy, r.gradient, r, false, false, wide),
                             rounded(weight, e4m3, r, true, true, wide).t());
    const Tensor dw = at::mm(rounded(dy, r.gradient, r, false, true, wide),
                             rounded(x, e4m3, r, false, true, wide).t());
    return {dx.to(x.scalar_type()), dw.to(weight.scalar_type()),
            bias.defined() ? dy.sum(at::IntArrayRef{0}, false, bias.scalar_type()) : Tensor(),
            Tensor()};
  }
};

}  // namespace

Tensor fp8_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                  const Fp8Recipe& recipe) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const int64_t in = x.size(-1), rows = in > 0 ? x.numel() / in : 0;
  return Formula::apply(x.reshape({rows, in}), weight, bias, recipe).view(sizes);
}

}  // namespace cosmos::ops::reference
