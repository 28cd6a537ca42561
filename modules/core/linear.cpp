#include "modules/core/linear.h"

#include <cmath>
#include <set>
#include <utility>

#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "ops/linear/linear.h"
#include "ops/linear_cross_entropy/linear_cross_entropy.h"

namespace cosmos::modules {

Tensor LinearAdapter::forward(const Tensor& x, const LinearImpl& linear) {
  return adapt(x, linear.base_product(x), linear);
}

LinearImpl::LinearImpl(int64_t in_features, int64_t out_features, bool with_bias) {
  weight = register_parameter("weight", new_parameter({out_features, in_features}));
  if (with_bias) bias = register_parameter("bias", new_parameter({out_features}));
  if (SkipInit::active()) return;
  // torch.nn.Linear's initialisation: both uniform in ±1/sqrt(fan_in).
  const double bound = in_features > 0 ? 1.0 / std::sqrt(static_cast<double>(in_features)) : 0.0;
  torch::NoGradGuard no_grad;
  weight.uniform_(-bound, bound);
  if (with_bias) bias.uniform_(-bound, bound);
}

LinearImpl::LinearImpl(const Tensor& shared) {
  weight = register_parameter("weight", shared);
}

Tensor LinearImpl::forward(const Tensor& x) {
  return forward_entered(collective_ ? collective_->enter(x) : x);
}

Tensor LinearImpl::base_product(const Tensor& x, bool with_bias) const {
  const Tensor b = with_bias ? product_bias() : Tensor();
  return rule_ ? (*rule_)(x, weight, b) : ops::linear(x, weight, b);
}

Tensor LinearImpl::product(const Tensor& x) {
  if (adapter_) return adapter_->forward(x, *this);
  if (postponed_ && !rule_ && weight.requires_grad() && torch::GradMode::is_enabled())
    return postponed_linear(x, weight, product_bias(), postponed_);
  return base_product(x);
}

Tensor LinearImpl::forward_entered(const Tensor& x) {
  const Tensor y = product(x);
  if (!collective_) return y;
  const Tensor whole = collective_->leave(y);
  return collective_->sums() && bias.defined() ? whole + bias : whole;
}

void LinearImpl::set_adapter(std::shared_ptr<LinearAdapter> adapter) {
  require(!adapter_, "this Linear already has an adapter: merge or remove it first");
  adapter_ = register_module("adapter", std::move(adapter));
}

std::shared_ptr<LinearAdapter> LinearImpl::take_adapter() {
  if (adapter_) unregister_module("adapter");
  return std::exchange(adapter_, nullptr);
}

std::vector<NamedLinear> named_linears(const torch::nn::Module& model) {
  std::vector<NamedLinear> found;
  std::set<const LinearImpl*> seen;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    auto linear = std::dynamic_pointer_cast<LinearImpl>(item.value());
    if (linear && seen.insert(linear.get()).second) found.push_back({item.key(), linear});
  }
  return found;
}

Tensors linear_group(const Tensor& x, std::initializer_list<Linear> linears) {
  Tensors outputs;
  outputs.reserve(linears.size());
  Tensor input = x;
  const LinearCollective* entered = nullptr;
  for (Linear linear : linears) {
    const LinearCollective* collective = linear->collective().get();
    if (collective != entered) input = collective ? collective->enter(x) : x;
    entered = collective;
    outputs.push_back(linear->forward_entered(input));
  }
  return outputs;
}

namespace {

/// Of a head without an adapter, which these losses would not see.
std::optional<ops::ClassRange> class_range(const Linear& head) {
  require(!head->adapter(), "the head has an adapter, which a loss without logits passes by: ",
          "leave it out (lora.exclude_modules)");
  return head->collective() ? head->collective()->class_range(head->out_features()) : std::nullopt;
}

std::optional<Tensor> bias_of(const Linear& head) {
  return head->bias.defined() ? std::optional<Tensor>(head->bias) : std::nullopt;
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& hidden, const Linear& head, const Tensor& target,
                            int64_t ignore_index, double label_smoothing, double z_loss,
                            std::string_view reduction) {
  if (const auto range = class_range(head))
    return ops::split_linear_cross_entropy(hidden, head->weight, target, bias_of(head), *range,
                                           ignore_index, label_smoothing, z_loss, reduction);
  return ops::linear_cross_entropy(hidden, head->weight, target, bias_of(head), ignore_index,
                                   label_smoothing, z_loss, reduction);
}

Tensor linear_log_probs(const Tensor& hidden, const Linear& head, const Tensor& target,
                        double temperature, int64_t ignore_index) {
  if (const auto range = class_range(head))
    return std::get<0>(ops::split_linear_log_probs_entropy(
        hidden, head->weight, target, bias_of(head), *range, temperature, ignore_index));
  return ops::linear_log_probs(hidden, head->weight, target, bias_of(head), temperature,
                               ignore_index);
}

std::tuple<Tensor, Tensor> linear_log_probs_entropy(const Tensor& hidden, const Linear& head,
                                                    const Tensor& target, double temperature,
                                                    int64_t ignore_index) {
  if (const auto range = class_range(head))
    return ops::split_linear_log_probs_entropy(hidden, head->weight, target, bias_of(head), *range,
                                               temperature, ignore_index);
  return ops::linear_log_probs_entropy(hidden, head->weight, target, bias_of(head), temperature,
                                       ignore_index);
}

}  // namespace cosmos::modules
