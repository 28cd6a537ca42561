#include "modules/core/weight_stacks.h"

#include <algorithm>

namespace cosmos::modules {

WeightStacksImpl::Stack& WeightStacksImpl::find(const std::string& name) {
  const auto found = std::find_if(stacks_.begin(), stacks_.end(),
                                  [&](const Stack& stack) { return stack.name == name; });
  require(found != stacks_.end(), "no stacked weight is called ", name);
  return *found;
}

Tensor WeightStacksImpl::register_stack(const std::string& name, const Tensor& weight) {
  stacks_.push_back({.name = name, .weight = register_parameter(name, weight)});
  return stacks_.back().weight;
}

void WeightStacksImpl::set_adapter(const std::string& name, std::shared_ptr<StackAdapter> adapter) {
  Stack& stack = find(name);
  require(!stack.adapter, name, " already has an adapter");
  stack.adapter = register_module("adapter_" + name, std::move(adapter));
}

std::shared_ptr<StackAdapter> WeightStacksImpl::take_adapter(const std::string& name) {
  Stack& stack = find(name);
  if (stack.adapter) unregister_module("adapter_" + name);
  return std::exchange(stack.adapter, nullptr);
}

Tensors WeightStacksImpl::products(std::size_t position, const Tensors& x,
                                   const std::vector<int64_t>& index) const {
  const Stack& stack = stacks_.at(position);
  // unbind, not select: its backward stacks once instead of adding a full tensor for each weight.
  const Tensors weights = stack.weight.unbind(0);
  Tensors out;
  for (std::size_t i = 0; i < x.size(); ++i)
    out.push_back(torch::linear(x[i], weights.at(index[i])));
  return stack.adapter ? stack.adapter->adapt(x, out, index) : out;
}

std::vector<NamedStacks> named_stacks(const torch::nn::Module& model) {
  std::vector<NamedStacks> found;
  for (const auto& item : model.named_modules("", /*include_self=*/false))
    if (auto stacks = std::dynamic_pointer_cast<WeightStacksImpl>(item.value()))
      found.push_back({item.key(), stacks});
  return found;
}

}  // namespace cosmos::modules
