// fp8_linear.h for the dispatcher: checks, schemas, autograd, and the entry points that C++ calls.

#include "ops/fp8/fp8_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/registry.h"
#include "ops/fp8/fp8_delayed.h"
#include "ops/fp8/fp8_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;
using Granularity = Fp8Granularity;

constexpr const char* kScalings[] = {"tensor", "row", "block"};

struct Granularities {
  Granularity rows;    ///< of x, x^T, dy, dy^T
  Granularity weight;  ///< of weight, weight^T
};

Granularities granularities(Fp8Scaling scaling) {
  switch (scaling) {
    case Fp8Scaling::kTensor:
      return {Granularity::kTensor, Granularity::kTensor};
    case Fp8Scaling::kRow:
      return {Granularity::kRow, Granularity::kRow};
    case Fp8Scaling::kBlock:
      break;
  }
  return {Granularity::k1x128, Granularity::k128x128};
}

/// One operand as the recipe asks, plain, transposed or both.
Fp8Pair quantize(const Tensor& x, Fp8Options options, const Fp8Delayed& delayed, Fp8Operand which,
                 bool plain, bool transposed) {
  const Optional scale = fp8_delayed_scale(delayed, which);
  Fp8Pair out;
  if (plain && transposed) {
    out = fp8_quantize_pair(x, options, scale);
  } else {
    const Fp8Tensor one = fp8_quantize(x, options, scale, transposed);
    out.amax = one.amax;
    (plain ? out.values : out.values_t) = one.values;
    (plain ? out.scale : out.scale_t) = one.scale;
  }
  fp8_delayed_record(delayed, which, out.amax);
  return out;
}

/// What a product takes besides x, weight and bias.
struct Settings {
  Fp8Recipe recipe;
  Fp8Delayed delayed;
  Fp8Weight quantised;
};

/// The weight, or its transpose, in 8 bits.
Fp8Tensor quantised_weight(const Tensor& weight, const Settings& s, bool transposed) {
  const Tensor &values = s.quantised.values, &scale = s.quantised.scale;
  if (!values.defined()) {
    const Fp8Options options{at::kFloat8_e4m3fn, granularities(s.recipe.scaling).weight,
                             s.recipe.power_of_two};
    Fp8Pair made =
        quantize(weight, options, s.delayed, Fp8Operand::kWeight, !transposed, transposed);
    return transposed ? Fp8Tensor{made.values_t, made.scale_t, made.amax}
                      : Fp8Tensor{made.values, made.scale, made.amax};
  }
  if (!transposed) return {values, scale, {}};
  return {values.t().contiguous(), scale.dim() == 2 ? scale.t().contiguous() : scale, {}};
}

/// y of rows x [M, in], and x^T quantised where `keep` says that a backward pass wants it.
std::pair<Tensor, Fp8Pair> product(const Tensor& x, const Tensor& weight, const Optional& bias,
                                   const Settings& s, bool keep) {
  const Fp8Options rows{at::kFloat8_e4m3fn, granularities(s.recipe.scaling).rows,
                        s.recipe.power_of_two};
  Fp8Pair a = quantize(x, rows, s.delayed, Fp8Operand::kInput, true, keep);
  const Fp8Tensor b = quantised_weight(weight, s, /*transposed=*/false);
  return {fp8_mm(a.values, a.scale, b.values, b.scale, x.scalar_type(), bias,
                 s.recipe.fast_accumulation),
          std::move(a)};
}

void save(AutogradContext* ctx, const Settings& s) {
  ctx->saved_data["scaling"] = static_cast<int64_t>(s.recipe.scaling);
  ctx->saved_data["gradient"] = static_cast<int64_t>(s.recipe.gradient);
  ctx->saved_data["power_of_two"] = s.recipe.power_of_two;
  // Not saved as variables: a later pass may raise the history before this one goes backward, and a
  // gathered weight is gathered again.
  ctx->saved_data["delayed_scale"] = s.delayed.scale;
  ctx->saved_data["amax_history"] = s.delayed.amax_history;
  ctx->saved_data["weight_values"] = s.quantised.values;
  ctx->saved_data["weight_scale"] = s.quantised.scale;
}

Settings load(AutogradContext* ctx) {
  const auto tensor = [&](const char* key) { return ctx->saved_data[key].toTensor(); };
  Settings s;
  s.recipe.scaling = static_cast<Fp8Scaling>(ctx->saved_data["scaling"].toInt());
  s.recipe.gradient = static_cast<at::ScalarType>(ctx->saved_data["gradient"].toInt());
  s.recipe.power_of_two = ctx->saved_data["power_of_two"].toBool();
  s.delayed = {tensor("delayed_scale"), tensor("amax_history")};
  s.quantised = {tensor("weight_values"), tensor("weight_scale")};
  return s;
}

struct Fp8LinearFunction : torch::autograd::Function<Fp8LinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Optional& bias, const Settings& settings, bool keep) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [y, a] = product(x, weight, bias, settings, keep);
    ctx->save_for_backward({weight, a.values_t, a.scale_t});
    ctx->saved_data["dtype"] = static_cast<int64_t>(x.scalar_type());
    if (bias) ctx->saved_data["bias_dtype"] = static_cast<int64_t>(bias->scalar_type());
    save(ctx, settings);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("fp8_linear");
    const auto saved = ctx->get_saved_variables();
    const Settings s = load(ctx);
    const Fp8Recipe& recipe = s.recipe;
    const Granularities g = granularities(recipe.scaling);
    const Tensor &dy = grads[0], &weight = saved[0];
    const bool want_x = ctx->needs_input_grad(0), want_weight = ctx->needs_input_grad(1);
    const bool want_bias = ctx->saved_data.count("bias_dtype") > 0 && ctx->needs_input_grad(2);
    Tensor dx, dw, db;
    Fp8Pair q;
    if (want_x || want_weight)
      q = quantize(dy, {recipe.gradient, g.rows, recipe.power_of_two}, s.delayed,
                   Fp8Operand::kGradient, want_x, want_weight);
    if (want_x) {
      const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt());
      const Fp8Tensor b = quantised_weight(weight, s, /*transposed=*/true);
      dx = fp8_mm(q.values, q.scale, b.values, b.scale, dtype);
    }
    if (want_weight) dw = fp8_mm(q.values_t, q.scale_t, saved[1], saved[2], weight.scalar_type());
    if (want_bias)
      db = dy.sum(at::IntArrayRef{0}, /*keepdim=*/false,
                  static_cast<at::ScalarType>(ctx->saved_data["bias_dtype"].toInt()));
    return {dx, dw, db, Tensor(), Tensor()};
  }
};

void check_quantised(const char* op, const Tensor& weight, const Settings& s) {
  const Tensor &values = s.quantised.values, &scale = s.quantised.scale;
  if (!values.defined() && !scale.defined()) return;
  const Granularity wanted = granularities(s.recipe.scaling).weight;
  require(
      wanted != Granularity::kRow, op,
      ": quantised: expected recipe.scaling tensor or block (rows of the transposed weight have "
      "other scales), got row");
  require(values.defined() && scale.defined() && values.scalar_type() == at::kFloat8_e4m3fn &&
              values.sym_sizes() == weight.sym_sizes() && values.device() == weight.device(),
          op, ": quantised: expected float8_e4m3fn values like the weight ", describe(weight),
          " and a scale, got ", describe(values), " and ", describe(scale));
  require(driver::fp8_granularity_of(op, values, scale) == wanted, op,
          ": quantised: expected a scale of ",
          wanted == Granularity::kTensor ? "tensor" : "128x128", ", got ", describe(scale));
}

void check(const Tensor& x, const Tensor& weight, const Optional& bias, const Settings& s) {
  constexpr const char* op = "fp8_linear";
  const Fp8Recipe& recipe = s.recipe;
  dtype_of(op, "x", x);
  dtype_of(op, "weight", weight);
  require(x.dim() >= 1, op, ": x: expected [..., in], got ", describe(x));
  require(
      weight.dim() == 2 && weight.sym_size(1) == x.sym_size(-1) && weight.device() == x.device(),
      op, ": weight: expected [out, ", x.sym_size(-1), "] on ", x.device(), " for x ", describe(x),
      ", got ", describe(weight));
  if (bias) {
    dtype_of(op, "bias", *bias);
    require(
        bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0) && bias->device() == x.device(),
        op, ": bias: expected [", weight.sym_size(0), "] on ", x.device(), ", got ",
        describe(*bias));
  }
  require(recipe.gradient == at::kFloat8_e4m3fn || recipe.gradient == at::kFloat8_e5m2, op,
          ": gradient: expected float8_e4m3fn or float8_e5m2, got ",
          c10::toString(recipe.gradient));
  check_quantised(op, weight, s);
}

/// [..., in] as rows, and their product's rows as [..., out].
template <typename Product>
Tensor by_rows(const Tensor& x, const Tensor& weight, Product product) {
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  sizes.back() = weight.sym_size(0);
  const Tensor y = product(x.reshape_symint({driver::fp8_rows_of(x), x.sym_size(-1)}));
  return y.view_symint(sizes);
}

Tensor linear_autograd(const Tensor& x, const Tensor& weight, const Optional& bias,
                       const Settings& settings) {
  check(x, weight, bias, settings);
  const bool keep = at::GradMode::is_enabled() && weight.requires_grad();
  return by_rows(x, weight, [&](const Tensor& rows) {
    return Fp8LinearFunction::apply(rows, weight, bias, settings, keep);
  });
}

Tensor linear_plain(const Tensor& x, const Tensor& weight, const Optional& bias,
                    const Settings& settings) {
  check(x, weight, bias, settings);
  return by_rows(x, weight, [&](const Tensor& rows) {
    return product(rows, weight, bias, settings, /*keep=*/false).first;
  });
}

Fp8Recipe recipe_of(c10::string_view scaling, at::ScalarType gradient, bool power_of_two,
                    bool fast_accumulation) {
  for (int i = 0; i < 3; ++i)
    if (scaling == kScalings[i])
      return {static_cast<Fp8Scaling>(i), gradient, power_of_two, fast_accumulation};
  fail("fp8_linear: scaling: expected tensor, row or block, got ", std::string(scaling));
}

Fp8Weight quantised_of(const Optional& values, const Optional& scale) {
  return {values.value_or(Tensor()), scale.value_or(Tensor())};
}

template <Tensor (*kLinear)(const Tensor&, const Tensor&, const Optional&, const Settings&)>
Tensor current(const Tensor& x, const Tensor& weight, const Optional& bias,
               c10::string_view scaling, at::ScalarType gradient, bool power_of_two,
               bool fast_accumulation, const Optional& weight_values,
               const Optional& weight_scale) {
  return kLinear(x, weight, bias,
                 {recipe_of(scaling, gradient, power_of_two, fast_accumulation),
                  {},
                  quantised_of(weight_values, weight_scale)});
}

template <Tensor (*kLinear)(const Tensor&, const Tensor&, const Optional&, const Settings&)>
Tensor delayed(const Tensor& x, const Tensor& weight, const Optional& bias, const Optional& scale,
               const Tensor& amax_history, at::ScalarType gradient, bool fast_accumulation,
               const Optional& weight_values, const Optional& weight_scale) {
  const Fp8Delayed state{scale.value_or(Tensor()), amax_history};
  fp8_delayed_check("fp8_linear_delayed", state, x);
  return kLinear(x, weight, bias,
                 {{Fp8Scaling::kTensor, gradient, false, fast_accumulation},
                  state,
                  quantised_of(weight_values, weight_scale)});
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "fp8_linear(Tensor x, Tensor weight, Tensor? bias, str scaling, ScalarType gradient, "
      "bool power_of_two=False, bool fast_accumulation=True, Tensor? weight_values=None, "
      "Tensor? weight_scale=None) -> Tensor");
  m.def(
      "fp8_linear_delayed(Tensor x, Tensor weight, Tensor? bias, Tensor? scale, "
      "Tensor(a!) amax_history, ScalarType gradient, bool fast_accumulation=True, "
      "Tensor? weight_values=None, Tensor? weight_scale=None) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("fp8_linear", current<linear_plain>);
  m.impl("fp8_linear_delayed", delayed<linear_plain>);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("fp8_linear", current<linear_autograd>);
  m.impl("fp8_linear_delayed", delayed<linear_autograd>);
}

}  // namespace

Tensor fp8_linear(const Tensor& x, const Tensor& weight, const Optional& bias,
                  const Fp8Recipe& recipe, const Fp8Delayed& state, const Fp8Weight& quantised) {
  const auto optional = [](const Tensor& t) { return t.defined() ? Optional(t) : Optional(); };
  const Optional values = optional(quantised.values), scale = optional(quantised.scale);
  if (!state.amax_history.defined()) {
    static const auto op = operator_handle<decltype(current<linear_plain>)>("fp8_linear");
    return op.call(x, weight, bias, kScalings[static_cast<int>(recipe.scaling)], recipe.gradient,
                   recipe.power_of_two, recipe.fast_accumulation, values, scale);
  }
  require(recipe.scaling == Fp8Scaling::kTensor,
          "fp8_linear: delayed scaling: expected recipe.scaling tensor, got ",
          kScalings[static_cast<int>(recipe.scaling)]);
  static const auto op = operator_handle<decltype(delayed<linear_plain>)>("fp8_linear_delayed");
  return op.call(x, weight, bias, optional(state.scale), state.amax_history, recipe.gradient,
                 recipe.fast_accumulation, values, scale);
}

}  // namespace cosmos::ops
