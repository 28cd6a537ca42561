#include "ops/linear_cross_entropy/split_linear_cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;

constexpr int64_t kIgnored = -1;  ///< in targets by the range's own numbers

struct LossOptions {
  double label_smoothing = 0, z_loss = 0, scale = 1;
};

struct Range : torch::CustomClassHolder {
  explicit Range(ClassRange range) : range(std::move(range)) {}
  ClassRange range;
};

/// By the range's own numbers; weight.size(0) stands for every class of another range.
Tensor own_targets(const Tensor& target, const ClassRange& range, int64_t here,
                   int64_t ignore_index) {
  const Tensor own = target - range.first;
  return own.masked_fill(own.lt(0).logical_or(own.ge(here)), here)
      .masked_fill(target.eq(ignore_index), kIgnored);
}

/// {loss [N], entropy [N]} of flat arguments.
struct SplitLoss : torch::autograd::Function<SplitLoss> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                               const Optional& bias, const Tensor& target,
                               const c10::intrusive_ptr<Range>& holder, const LossOptions& o,
                               bool entropy) {
    const ClassRange& range = holder->range;
    const Tensor state = driver::merge_class_states(range.gather(
        driver::class_states(hidden, weight, bias, target, kIgnored, o.scale, entropy)));
    auto [loss, entropies] =
        driver::class_losses(state, target, range.classes, kIgnored, o.label_smoothing, o.z_loss);
    ctx->save_for_backward({hidden, weight, bias.value_or(Tensor()), target, state});
    ctx->saved_data["range"] = c10::IValue::make_capsule(holder);
    ctx->saved_data["options"] = std::vector<double>{o.label_smoothing, o.z_loss, o.scale};
    ctx->mark_non_differentiable({entropies});
    return {loss, entropies};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("split_linear_cross_entropy");
    const auto saved = ctx->get_saved_variables();
    const auto holder =
        c10::static_intrusive_pointer_cast<Range>(ctx->saved_data["range"].toCapsule());
    const auto o = ctx->saved_data["options"].toDoubleVector();
    // Every rank's loss depends on the classes here.
    const Tensor grad = holder->range.sum(grads[0].contiguous());
    const bool bias_grad = saved[2].defined() && ctx->needs_input_grad(2);
    auto [hidden, weight, bias] = driver::class_gradients(
        grad, saved[4], saved[0], saved[1], saved[2].defined() ? Optional(saved[2]) : std::nullopt,
        saved[3], holder->range.classes, kIgnored, o[0], o[1], o[2], ctx->needs_input_grad(0),
        ctx->needs_input_grad(1), bias_grad);
    variable_list out(7);
    if (ctx->needs_input_grad(0)) out[0] = hidden;
    if (ctx->needs_input_grad(1)) out[1] = weight;
    if (bias_grad) out[2] = bias;
    return out;
  }
};

variable_list split_loss(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                         const Optional& bias, const ClassRange& range, int64_t ignore_index,
                         const LossOptions& options, bool entropy) {
  constexpr auto op = "split_linear_cross_entropy";
  check_alike(op, "hidden", hidden, "weight", weight);
  const int64_t here = weight.size(0);
  require(range.first >= 0 && range.first + here <= range.classes, op, ": expected a range of ",
          range.classes, " classes, got ", here, " from ", range.first, " on");
  require(target.scalar_type() == at::kLong &&
              target.sizes() == hidden.sizes().slice(0, hidden.dim() - 1),
          op, ": target: expected int64 ", hidden.sizes().slice(0, hidden.dim() - 1), ", got ",
          describe(target));
  const Tensor flat = target.reshape({-1}).contiguous();
  driver::check_targets(flat, range.classes, ignore_index);
  return SplitLoss::apply(hidden.reshape({-1, hidden.size(-1)}).contiguous(), weight,
                          bias ? Optional(bias->contiguous()) : std::nullopt,
                          own_targets(flat, range, here, ignore_index),
                          c10::make_intrusive<Range>(range), options, entropy);
}

}  // namespace

Tensor split_linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                                  const Optional& bias, const ClassRange& range,
                                  int64_t ignore_index, double label_smoothing, double z_loss,
                                  std::string_view reduction) {
  require(reduction == "mean" || reduction == "sum" || reduction == "none",
          "split_linear_cross_entropy: reduction: expected mean, sum or none, got ", reduction);
  const LossOptions options{.label_smoothing = label_smoothing, .z_loss = z_loss};
  const Tensor loss =
      split_loss(hidden, weight, target, bias, range, ignore_index, options, false)[0];
  if (reduction == "none") return loss.view(target.sizes());
  if (reduction == "sum") return loss.sum();
  return loss.sum() / target.ne(ignore_index).sum().clamp_min(1);
}

std::tuple<Tensor, Tensor> split_linear_log_probs_entropy(
    const Tensor& hidden, const Tensor& weight, const Tensor& target, const Optional& bias,
    const ClassRange& range, double temperature, int64_t ignore_index) {
  require(temperature > 0,
          "split_linear_log_probs_entropy: temperature: expected more than 0, got ", temperature);
  const variable_list out = split_loss(hidden, weight, target, bias, range, ignore_index,
                                       {.scale = 1 / temperature}, true);
  return {out[0].neg().view(target.sizes()), out[1].view(target.sizes())};
}

}  // namespace cosmos::ops
