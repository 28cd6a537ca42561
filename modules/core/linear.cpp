#include "modules/core/linear.h"

#include <cmath>
#include <set>
#include <utility>

#include "modules/core/init.h"

namespace cosmos::modules {

Tensor LinearAdapter::forward(const Tensor& x, const LinearImpl& linear) {
  return adapt(x, torch::linear(x, linear.weight, linear.bias), linear);
}

LinearImpl::LinearImpl(int64_t in_features, int64_t out_features, bool with_bias) {
  weight = register_parameter("weight", torch::empty({out_features, in_features}));
  if (with_bias) bias = register_parameter("bias", torch::empty({out_features}));
  if (SkipInit::active()) return;
  // torch.nn.Linear's initialisation: both uniform in ±1/sqrt(fan_in).
  const double bound = in_features > 0 ? 1.0 / std::sqrt(static_cast<double>(in_features)) : 0.0;
  torch::NoGradGuard no_grad;
  weight.uniform_(-bound, bound);
  if (with_bias) bias.uniform_(-bound, bound);
}

Tensor LinearImpl::forward(const Tensor& x) {
  return adapter_ ? adapter_->forward(x, *this) : torch::linear(x, weight, bias);
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
  for (Linear linear : linears) outputs.push_back(linear->forward(x));
  return outputs;
}

}  // namespace cosmos::modules
