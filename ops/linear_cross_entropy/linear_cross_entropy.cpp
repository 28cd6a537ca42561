// linear_cross_entropy.h for the dispatcher: schemas, autograd, and the entry points that C++
// calls.

#include "ops/linear_cross_entropy/linear_cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;

/// Checked arguments as the driver takes them; the reshapes belong to autograd.
struct Arguments {
  Tensor hidden, weight;  ///< [N, D], [V, D]
  Optional bias;          ///< [V]
  Tensor target;          ///< [N]
  int64_t ignore_index;
  double label_smoothing, z_loss, scale;
};

Arguments make_arguments(const char* op, const Tensor& hidden, const Tensor& weight,
                         const Tensor& target, const Optional& bias, int64_t ignore_index) {
  dtype_of(op, "hidden", hidden);
  check_alike(op, "hidden", hidden, "weight", weight);
  require(hidden.dim() >= 1 && hidden.sym_size(-1) > 0, op,
          ": hidden: expected [..., D] with D > 0, got ", describe(hidden));
  require(weight.dim() == 2 && weight.sym_size(0) > 0 && weight.sym_size(1) == hidden.sym_size(-1),
          op, ": weight: expected [V, ", hidden.sym_size(-1), "] with V > 0 for hidden ",
          describe(hidden), ", got ", describe(weight));
  const auto leading = hidden.sym_sizes().slice(0, hidden.dim() - 1);
  require(target.defined() && target.scalar_type() == at::kLong &&
              target.device() == hidden.device() && target.sym_sizes() == leading,
          op, ": target: expected int64 ", leading, " on ", hidden.device(), " for hidden ",
          describe(hidden), ", got ", describe(target));
  if (bias) {
    check_alike(op, "hidden", hidden, "bias", *bias);
    require(bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0), op, ": bias: expected [",
            weight.sym_size(0), "] for weight ", describe(weight), ", got ", describe(*bias));
  }
  return {hidden.reshape_symint({-1, hidden.sym_size(-1)}).contiguous(),
          weight,
          bias ? Optional(bias->contiguous()) : std::nullopt,
          target.reshape({-1}).contiguous(),
          ignore_index,
          0,
          0,
          1};
}

Arguments loss_arguments(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                         const Optional& bias, int64_t ignore_index, double label_smoothing,
                         double z_loss, std::string_view reduction) {
  constexpr auto op = "linear_cross_entropy";
  require(reduction == "mean" || reduction == "sum" || reduction == "none", op,
          ": reduction: expected mean, sum or none, got ", reduction);
  require(label_smoothing >= 0 && label_smoothing <= 1, op,
          ": label_smoothing: expected 0 to 1, got ", label_smoothing);
  require(z_loss >= 0, op, ": z_loss: expected 0 or more, got ", z_loss);
  Arguments a = make_arguments(op, hidden, weight, target, bias, ignore_index);
  a.label_smoothing = label_smoothing;
  a.z_loss = z_loss;
  return a;
}

Arguments log_probs_arguments(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                              const Optional& bias, double temperature, int64_t ignore_index) {
  constexpr auto op = "linear_log_probs";
  require(temperature > 0, op, ": temperature: expected more than 0, got ", temperature);
  Arguments a = make_arguments(op, hidden, weight, target, bias, ignore_index);
  a.scale = 1 / temperature;
  return a;
}

/// One loss a token, and the entropies. Backward computes the logits again; where hidden alone gets
/// a gradient (`hidden_alone`), forward has it already, but for the factor that arrives.
struct PerTokenFunction : torch::autograd::Function<PerTokenFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                               const Optional& bias, const Arguments& a, bool entropy,
                               bool hidden_alone) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(driver::linear_cross_entropy_forward)>(
        "linear_cross_entropy_forward");
    auto [loss, entropies, state, grad] =
        op.call(hidden, weight, bias, a.target, a.ignore_index, a.label_smoothing, a.z_loss,
                a.scale, entropy, hidden_alone);
    if (hidden_alone)
      ctx->save_for_backward({grad});
    else
      ctx->save_for_backward({hidden, weight, bias.value_or(Tensor()), a.target, state});
    ctx->saved_data["dtype"] = hidden.scalar_type();
    ctx->saved_data["ignore_index"] = a.ignore_index;
    ctx->saved_data["label_smoothing"] = a.label_smoothing;
    ctx->saved_data["z_loss"] = a.z_loss;
    ctx->saved_data["scale"] = a.scale;
    ctx->mark_non_differentiable({entropies});
    return {loss, entropies};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("linear_cross_entropy");
    const auto saved = ctx->get_saved_variables();
    variable_list out(6);
    if (saved.size() == 1) {
      out[0] = (saved[0] * grads[0].unsqueeze(1)).to(ctx->saved_data["dtype"].toScalarType());
      return out;
    }
    static const auto op = operator_handle<decltype(driver::linear_cross_entropy_backward)>(
        "linear_cross_entropy_backward");
    const auto number = [&](const char* name) { return ctx->saved_data[name].toDouble(); };
    const bool wanted[] = {ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                           saved[2].defined() && ctx->needs_input_grad(2)};
    const auto [hidden, weight, bias] =
        op.call(grads[0], saved[4], saved[0], saved[1],
                saved[2].defined() ? Optional(saved[2]) : std::nullopt, saved[3],
                ctx->saved_data["ignore_index"].toInt(), number("label_smoothing"),
                number("z_loss"), number("scale"), wanted[0], wanted[1], wanted[2]);
    if (wanted[0]) out[0] = hidden;
    if (wanted[1]) out[1] = weight;
    if (wanted[2]) out[2] = bias;
    return out;
  }
};

/// From how many tokens on groups of them leave less than a tenth of the plain formula's memory;
/// fewer take four products in groups of classes, where a group of 43 would cost 1.4 times as much.
constexpr int64_t kTokensInGroups = 2048;

bool needs_grad(const Tensor& x) {
  return at::GradMode::is_enabled() && x.requires_grad();
}

variable_list per_token(const Arguments& a, bool entropy) {
  const bool hidden_alone =
      needs_grad(a.hidden) && !needs_grad(a.weight) && !(a.bias && needs_grad(*a.bias));
  return PerTokenFunction::apply(a.hidden, a.weight, a.bias, a, entropy, hidden_alone);
}

/// `gradient` times `by`. Backward frees the saved gradient after this, so that it is multiplied in
/// place (or left alone when the result is 1, which only a CPU can see at no cost); where the graph
/// is kept for another pass, the product is a new tensor.
Tensor scaled(const Tensor& gradient, const Tensor& by) {
  if (torch::autograd::get_current_graph_task_keep_graph()) return gradient * by;
  if (by.is_cpu() && !at::isTensorSubclassLike(by) && by.item<double>() == 1) return gradient;
  return gradient.detach().mul_(by);
}

/// The mean or sum of the losses; gradients are computed in forward and multiplied in backward.
struct ReducedFunction : torch::autograd::Function<ReducedFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const Optional& bias, const Arguments& a, bool mean, bool hidden_grad,
                        bool weight_grad, bool bias_grad) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(driver::linear_cross_entropy_with_gradients)>(
        "linear_cross_entropy_with_gradients");
    auto [loss, grad_hidden, grad_weight, grad_bias] =
        op.call(hidden, weight, bias, a.target, a.ignore_index, a.label_smoothing, a.z_loss, mean,
                hidden_grad, weight_grad, bias_grad);
    ctx->save_for_backward({grad_hidden, grad_weight, grad_bias});
    ctx->saved_data["wanted"] = std::vector<bool>{hidden_grad, weight_grad, bias_grad};
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("linear_cross_entropy");
    const auto saved = ctx->get_saved_variables();
    const auto wanted = ctx->saved_data["wanted"].toBoolList();
    variable_list out(8);
    for (std::size_t i = 0; i < 3; ++i)
      if (wanted[i] && ctx->needs_input_grad(i)) out[i] = scaled(saved[i], grads[0]);
    return out;
  }
};

Tensor reduce(const Tensor& loss, const Tensor& target, int64_t ignore_index,
              std::string_view reduction) {
  if (reduction == "none") return loss.view_symint(target.sym_sizes());
  if (reduction == "sum") return loss.sum();
  return loss.sum() / target.ne(ignore_index).sum().clamp_min(1);
}

Tensor linear_cross_entropy_autograd(const Tensor& hidden, const Tensor& weight,
                                     const Tensor& target, const Optional& bias,
                                     int64_t ignore_index, double label_smoothing, double z_loss,
                                     std::string_view reduction) {
  const Arguments a = loss_arguments(hidden, weight, target, bias, ignore_index, label_smoothing,
                                     z_loss, reduction);
  if (use_reference(hidden))
    return reference::linear_cross_entropy(hidden, weight, target, bias, ignore_index,
                                           label_smoothing, z_loss, reduction);
  const bool wanted[] = {needs_grad(hidden), needs_grad(weight), bias && needs_grad(*bias)};
  if (reduction != "none" && hidden.scalar_type() != at::kHalf && (wanted[1] || wanted[2]) &&
      a.hidden.sym_size(0) >= kTokensInGroups)
    return ReducedFunction::apply(a.hidden, a.weight, a.bias, a, reduction == "mean", wanted[0],
                                  wanted[1], wanted[2]);
  return reduce(per_token(a, false)[0], target, ignore_index, reduction);
}

std::tuple<Tensor, Tensor> forward_plain(const Arguments& a, bool entropy) {
  const auto [loss, entropies, state, grad] =
      driver::linear_cross_entropy_forward(a.hidden, a.weight, a.bias, a.target, a.ignore_index,
                                           a.label_smoothing, a.z_loss, a.scale, entropy, false);
  return {loss, entropies};
}

Tensor linear_cross_entropy_plain(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                                  const Optional& bias, int64_t ignore_index,
                                  double label_smoothing, double z_loss,
                                  std::string_view reduction) {
  const Arguments a = loss_arguments(hidden, weight, target, bias, ignore_index, label_smoothing,
                                     z_loss, reduction);
  return reduce(std::get<0>(forward_plain(a, false)), target, ignore_index, reduction);
}

/// {log p, entropy}; entropy is [0] unless asked for.
std::tuple<Tensor, Tensor> log_probs_autograd(const Tensor& hidden, const Tensor& weight,
                                              const Tensor& target, const Optional& bias,
                                              double temperature, int64_t ignore_index,
                                              bool entropy) {
  const Arguments a = log_probs_arguments(hidden, weight, target, bias, temperature, ignore_index);
  if (use_reference(hidden))
    return reference::linear_log_probs_entropy(hidden, weight, target, bias, temperature,
                                               ignore_index);
  const variable_list out = per_token(a, entropy);
  return {out[0].neg().view_symint(target.sym_sizes()),
          entropy ? out[1].view_symint(target.sym_sizes()) : out[1]};
}

std::tuple<Tensor, Tensor> log_probs_plain(const Tensor& hidden, const Tensor& weight,
                                           const Tensor& target, const Optional& bias,
                                           double temperature, int64_t ignore_index, bool entropy) {
  const auto [loss, entropies] = forward_plain(
      log_probs_arguments(hidden, weight, target, bias, temperature, ignore_index), entropy);
  return {loss.neg().view_symint(target.sym_sizes()),
          entropy ? entropies.view_symint(target.sym_sizes()) : entropies};
}

template <auto kFunction, bool kEntropy>
auto log_probs(const Tensor& hidden, const Tensor& weight, const Tensor& target,
               const Optional& bias, double temperature, int64_t ignore_index) {
  auto both = kFunction(hidden, weight, target, bias, temperature, ignore_index, kEntropy);
  if constexpr (kEntropy)
    return both;
  else
    return std::get<0>(both);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor target, Tensor? bias=None, "
      "int ignore_index=-100, float label_smoothing=0.0, float z_loss=0.0, "
      "str reduction='mean') -> Tensor");
  m.def(
      "linear_log_probs(Tensor hidden, Tensor weight, Tensor target, Tensor? bias=None, "
      "float temperature=1.0, int ignore_index=-100) -> Tensor");
  m.def(
      "linear_log_probs_entropy(Tensor hidden, Tensor weight, Tensor target, Tensor? bias=None, "
      "float temperature=1.0, int ignore_index=-100) -> (Tensor, Tensor)");
  m.def(
      "linear_cross_entropy_forward(Tensor hidden, Tensor weight, Tensor? bias, Tensor target, "
      "int ignore_index, float label_smoothing, float z_loss, float scale, bool entropy, "
      "bool hidden_grad) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "linear_cross_entropy_backward(Tensor grad, Tensor state, Tensor hidden, Tensor weight, "
      "Tensor? bias, Tensor target, int ignore_index, float label_smoothing, float z_loss, "
      "float scale, bool hidden_grad, bool weight_grad, bool bias_grad) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "linear_cross_entropy_with_gradients(Tensor hidden, Tensor weight, Tensor? bias, "
      "Tensor target, int ignore_index, float label_smoothing, float z_loss, bool mean, "
      "bool hidden_grad, bool weight_grad, bool bias_grad) -> (Tensor, Tensor, Tensor, Tensor)");
}

void register_devices(torch::Library& m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_plain);
  m.impl("linear_log_probs", log_probs<log_probs_plain, false>);
  m.impl("linear_log_probs_entropy", log_probs<log_probs_plain, true>);
  m.impl("linear_cross_entropy_forward", driver::linear_cross_entropy_forward);
  m.impl("linear_cross_entropy_backward", driver::linear_cross_entropy_backward);
  m.impl("linear_cross_entropy_with_gradients", driver::linear_cross_entropy_with_gradients);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_autograd);
  m.impl("linear_log_probs", log_probs<log_probs_autograd, false>);
  m.impl("linear_log_probs_entropy", log_probs<log_probs_autograd, true>);
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                            const Optional& bias, int64_t ignore_index, double label_smoothing,
                            double z_loss, std::string_view reduction) {
  static const auto op = operator_handle<decltype(linear_cross_entropy)>("linear_cross_entropy");
  return op.call(hidden, weight, target, bias, ignore_index, label_smoothing, z_loss, reduction);
}

Tensor linear_log_probs(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                        const Optional& bias, double temperature, int64_t ignore_index) {
  static const auto op = operator_handle<decltype(linear_log_probs)>("linear_log_probs");
  return op.call(hidden, weight, target, bias, temperature, ignore_index);
}

std::tuple<Tensor, Tensor> linear_log_probs_entropy(const Tensor& hidden, const Tensor& weight,
                                                    const Tensor& target, const Optional& bias,
                                                    double temperature, int64_t ignore_index) {
  static const auto op =
      operator_handle<decltype(linear_log_probs_entropy)>("linear_log_probs_entropy");
  return op.call(hidden, weight, target, bias, temperature, ignore_index);
}

}  // namespace cosmos::ops
