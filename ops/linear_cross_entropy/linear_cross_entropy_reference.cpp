#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>

#include "ops/core/check.h"
#include "ops/linear_cross_entropy/linear_cross_entropy.h"

namespace cosmos::ops::reference {
namespace {

using at::Tensor;

Tensor wide_logits(const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& bias) {
  const at::ScalarType type = accumulate_dtype(hidden);
  return at::linear(hidden.to(type), weight.to(type),
                    bias ? std::optional<Tensor>(bias->to(type)) : std::nullopt);
}

/// x[..., target]; class 0 stands in for ignored targets, whose result the caller masks.
Tensor pick(const Tensor& x, const Tensor& target, const Tensor& ignored) {
  return x.gather(-1, target.masked_fill(ignored, 0).unsqueeze(-1)).squeeze(-1);
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                            const std::optional<Tensor>& bias, int64_t ignore_index,
                            double label_smoothing, double z_loss, std::string_view reduction) {
  const Tensor logits = wide_logits(hidden, weight, bias);
  const Tensor ignored = target.eq(ignore_index), lse = at::logsumexp(logits, -1);
  Tensor loss = lse - (1 - label_smoothing) * pick(logits, target, ignored) -
                label_smoothing * logits.mean(-1) + z_loss * lse * lse;
  loss = loss.masked_fill(ignored, 0);
  if (reduction == "none") return loss;
  if (reduction == "sum") return loss.sum();
  return loss.sum() / ignored.logical_not().sum().clamp_min(1);
}

std::tuple<Tensor, Tensor> linear_log_probs_entropy(const Tensor& hidden, const Tensor& weight,
                                                    const Tensor& target,
                                                    const std::optional<Tensor>& bias,
                                                    double temperature, int64_t ignore_index) {
  const Tensor ignored = target.eq(ignore_index);
  const Tensor log_p = at::log_softmax(wide_logits(hidden, weight, bias) / temperature, -1);
  const Tensor entropy = -(log_p.exp() * log_p).sum(-1);
  return {pick(log_p, target, ignored).masked_fill(ignored, 0),
          entropy.masked_fill(ignored, 0).detach()};
}

}  // namespace cosmos::ops::reference
