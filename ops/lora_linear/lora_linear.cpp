// lora_linear.h for the dispatcher: schemas, autograd, and the entry point that C++ calls.

#include "ops/lora_linear/lora_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/dropout/dropout_driver.h"
#include "ops/lora_linear/lora_linear_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Bias = std::optional<Tensor>;

constexpr const char* kName = "lora_linear";

struct LoraLinearFunction : torch::autograd::Function<LoraLinearFunction> {
  // The bias is last of the tensors: an absent one has no edge, and would move those behind it.
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& lora_a, const Tensor& lora_b, const Bias& bias, double scale,
                        double dropout, const std::vector<int64_t>& seeds,
                        const std::vector<int64_t>& slice) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op =
        operator_handle<decltype(driver::lora_linear_forward)>("lora_linear_forward");
    auto [out, t] = op.call(x, weight, lora_a, lora_b, bias, scale, dropout, seeds, slice);
    ctx->save_for_backward({x, weight, lora_a, lora_b, t});
    ctx->saved_data["has_bias"] = bias.has_value();
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["dropout"] = dropout;
    ctx->saved_data["seeds"] = seeds;
    ctx->saved_data["slice"] = slice;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward(kName);
    const auto saved = ctx->get_saved_variables();
    const bool has_bias = ctx->saved_data["has_bias"].toBool();
    const std::array<bool, 5> wanted = {ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                        ctx->needs_input_grad(2), ctx->needs_input_grad(3),
                                        has_bias && ctx->needs_input_grad(4)};
    static const auto op =
        operator_handle<decltype(driver::lora_linear_backward)>("lora_linear_backward");
    auto [x, weight, lora_a, lora_b, bias] = op.call(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
        ctx->saved_data["scale"].toDouble(), ctx->saved_data["dropout"].toDouble(),
        ctx->saved_data["seeds"].toIntVector(), ctx->saved_data["slice"].toIntVector(), wanted);
    variable_list result = {x,        weight,   lora_a,   lora_b,  bias,
                            Tensor(), Tensor(), Tensor(), Tensor()};
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (!wanted[i]) result[i] = Tensor();
    return result;
  }
};

void check_shape(const char* name, const Tensor& x, const Tensor& y,
                 const std::vector<c10::SymInt>& expected) {
  check_alike(kName, "x", x, name, y);
  require(y.sym_sizes() == c10::SymIntArrayRef(expected), kName, ": ", name, ": expected ",
          c10::SymIntArrayRef(expected), ", got ", describe(y));
}

void check(const Tensor& x, const Tensor& weight, const Bias& bias, const Tensor& lora_a,
           const Tensor& lora_b, double dropout, at::IntArrayRef seeds, at::IntArrayRef slice) {
  dtype_of(kName, "x", x);
  require(x.dim() >= 1 && x.sym_size(-1) > 0, kName, ": x: expected [..., in] with in > 0, got ",
          describe(x));
  for (const auto& [name, matrix] : {std::pair{"weight", weight}, std::pair{"lora_b", lora_b}})
    require(matrix.defined() && matrix.dim() == 2, kName, ": ", name, ": expected a matrix, got ",
            describe(matrix));
  const c10::SymInt in = x.sym_size(-1), out = weight.sym_size(0), rank = lora_b.sym_size(1);
  check_shape("weight", x, weight, {out, in});
  check_shape("lora_a", x, lora_a, {rank, in});
  check_shape("lora_b", x, lora_b, {out, rank});
  if (bias) check_shape("bias", x, *bias, {out});
  if (dropout != 0) check_dropout(kName, x, dropout, seeds, slice);
}

Tensor rows_of(const Tensor& x) {
  return x.dim() == 2 ? x : x.reshape_symint({-1, x.sym_size(-1)});
}

Tensor shaped_as(const Tensor& out, const Tensor& x) {
  if (x.dim() == 2) return out;
  auto shape = x.sym_sizes().vec();
  shape.back() = out.sym_size(1);
  return out.view_symint(shape);
}

/// Products run on any device; the mask needs a kernel.
bool take_reference(const Tensor& x, double dropout) {
  return dropout != 0 ? use_reference(x) : path() == Path::kReference;
}

Tensor lora_linear_autograd(const Tensor& x, const Tensor& weight, const Bias& bias,
                            const Tensor& lora_a, const Tensor& lora_b, double scale,
                            double dropout, at::IntArrayRef seeds, at::IntArrayRef slice) {
  check(x, weight, bias, lora_a, lora_b, dropout, seeds, slice);
  if (take_reference(x, dropout))
    return reference::lora_linear(x, weight, bias.value_or(Tensor()),
                                  {lora_a, lora_b, scale, dropout, seeds.vec(), slice.vec()});
  return shaped_as(LoraLinearFunction::apply(rows_of(x), weight, lora_a, lora_b, bias, scale,
                                             dropout, seeds.vec(), slice.vec()),
                   x);
}

Tensor lora_linear_plain(const Tensor& x, const Tensor& weight, const Bias& bias,
                         const Tensor& lora_a, const Tensor& lora_b, double scale, double dropout,
                         at::IntArrayRef seeds, at::IntArrayRef slice) {
  check(x, weight, bias, lora_a, lora_b, dropout, seeds, slice);
  const auto [out, t] = driver::lora_linear_forward(rows_of(x), weight, lora_a, lora_b, bias, scale,
                                                    dropout, seeds, slice);
  return shaped_as(out, x);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "lora_linear(Tensor x, Tensor weight, Tensor? bias, Tensor lora_a, Tensor lora_b, "
      "float scale=1.0, float dropout=0.0, int[] seeds=[], int[] slice=[]) -> Tensor");
  m.def(
      "lora_linear_forward(Tensor x, Tensor weight, Tensor lora_a, Tensor lora_b, Tensor? bias, "
      "float scale, float dropout, int[] seeds, int[] slice) -> (Tensor, Tensor)");
  m.def(
      "lora_linear_backward(Tensor grad, Tensor x, Tensor weight, Tensor lora_a, Tensor lora_b, "
      "Tensor t, float scale, float dropout, int[] seeds, int[] slice, bool[5] wanted) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("lora_linear", lora_linear_plain);
  m.impl("lora_linear_forward", driver::lora_linear_forward);
  m.impl("lora_linear_backward", driver::lora_linear_backward);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("lora_linear", lora_linear_autograd);
}

}  // namespace

Tensor lora_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const LoraUpdate& lora) {
  static const auto op = operator_handle<decltype(lora_linear_plain)>(kName);
  return op.call(x, weight, bias.defined() ? Bias(bias) : std::nullopt, lora.a, lora.b, lora.scale,
                 lora.dropout, lora.seeds, lora.slice);
}

}  // namespace cosmos::ops
