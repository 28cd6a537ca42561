#include "modules/lora/lora.h"

#include <algorithm>
#include <map>
#include <set>

#include "modules/hub/model_weights.h"
#include "modules/lora/attach.h"

namespace cosmos::modules {

void set_base_requires_grad(Model& model, bool requires_grad) {
  std::set<const c10::TensorImpl*> buffers;
  for (const auto& buffer : model.buffers()) buffers.insert(buffer.unsafeGetTensorImpl());
  for (auto& entry : base_tensors(model))
    if (entry.tensor.is_floating_point() && buffers.count(entry.tensor.unsafeGetTensorImpl()) == 0)
      entry.tensor.set_requires_grad(requires_grad);
}

namespace {

void require_bare(const Model& model) {
  const auto bare = [](const std::string& name, bool adapted) {
    require(!adapted, "lora: ", name, " already has an adapter; merge or remove it first");
  };
  for (const auto& [name, linear] : named_linears(model)) bare(name, linear->adapter() != nullptr);
  for (const auto& [path, module] : named_stacks(model))
    for (const auto& stack : module->stacks())
      bare(path + "." + stack.name, stack.adapter != nullptr);
}

}  // namespace

void attach_lora(Model& model, const LoraConfig& config, const LoraTargets& targets,
                 uint64_t seed) {
  require_bare(model);
  auto shared_config = std::make_shared<const LoraConfig>(config);
  auto key = std::make_shared<DropoutKey>();
  std::map<std::string, std::shared_ptr<LinearImpl>> linears;
  for (auto& [name, linear] : named_linears(model)) linears[name] = linear;
  set_base_requires_grad(model, false);
  int64_t layer = 0;
  for (const auto& name : targets.modules) {
    const auto& linear = linears.at(name);
    const LoraAdapter::Options options{.rank = config.rank_of(name),
                                       .alpha = config.alpha_of(name),
                                       .scaling = config.scaling_of(name),
                                       .dropout = config.dropout,
                                       .dora = config.use_dora,
                                       .layer = layer++,
                                       .key = key,
                                       .config = shared_config};
    auto adapter = std::make_shared<LoraAdapter>(*linear, options, seed);
    adapter->train(model.is_training());
    linear->set_adapter(adapter);
  }
  const std::set<std::string> chosen(targets.parameters.begin(), targets.parameters.end());
  for (const auto& [path, module] : named_stacks(model))
    for (const auto& stack : module->stacks()) {
      const std::string name = path + "." + stack.name;
      if (!chosen.count(name)) continue;
      const StackLora::Options options{.rank = config.rank_of(name),
                                       .scaling = config.scaling_of(name),
                                       .layer = layer++,
                                       .config = shared_config};
      module->set_adapter(stack.name, std::make_shared<StackLora>(stack.weight, options, seed));
    }
}

LoraReport apply_lora(Model& model, const LoraConfig& config, uint64_t seed) {
  config.check("lora");
  std::vector<std::string> modules, parameters;
  for (const auto& [name, linear] : named_linears(model)) modules.push_back(name);
  for (const auto& [path, module] : named_stacks(model))
    for (const auto& stack : module->stacks()) parameters.push_back(path + "." + stack.name);
  attach_lora(model, config,
              {.modules = target_modules(config, modules),
               .parameters = target_parameters(config, parameters)},
              seed);

  LoraReport report;
  const auto count = [&](const torch::nn::Module& adapter) {
    ++report.layers;
    for (const auto& parameter : adapter.parameters())
      report.trainable_parameters += parameter.numel();
  };
  for (const auto& layer : lora_layers(model)) count(*layer.adapter);
  for (const auto& stack : lora_stacks(model)) count(*stack.adapter);
  for (const auto& entry : base_tensors(model)) report.base_parameters += entry.tensor.numel();
  return report;
}

std::vector<LoraLayer> lora_layers(const Model& model) {
  std::vector<LoraLayer> layers;
  for (const auto& [name, linear] : named_linears(model))
    if (auto adapter = std::dynamic_pointer_cast<LoraAdapter>(linear->adapter()))
      layers.push_back({name, linear, adapter});
  return layers;
}

std::vector<LoraStack> lora_stacks(const Model& model) {
  std::vector<LoraStack> found;
  for (const auto& [path, module] : named_stacks(model))
    for (const auto& stack : module->stacks())
      if (auto adapter = std::dynamic_pointer_cast<StackLora>(stack.adapter))
        found.push_back({path + "." + stack.name, module, stack, adapter});
  return found;
}

LoraConfig lora_config(const Model& model) {
  const auto layers = lora_layers(model);
  if (!layers.empty()) return *layers.front().adapter->options().config;
  const auto stacks = lora_stacks(model);
  require(!stacks.empty(), "lora: ", model.class_name(), " has no adapter");
  return *stacks.front().adapter->options().config;
}

void set_dropout_samples(Model& model, uint64_t seed, const std::vector<int64_t>& samples) {
  const auto layers = lora_layers(model);
  require(!layers.empty(), "lora: ", model.class_name(), " has no adapter");
  DropoutKey& key = *layers.front().adapter->options().key;  // one for all of them
  key.seed = seed;
  key.samples = samples;
}

bool has_effect(const Model& model) {
  const auto layers = lora_layers(model);
  const auto stacks = lora_stacks(model);
  return std::any_of(
             layers.begin(), layers.end(),
             [](const LoraLayer& layer) { return layer.adapter->has_effect(*layer.linear); }) ||
         std::any_of(stacks.begin(), stacks.end(), [](const LoraStack& stack) {
           return stack.adapter->delta().any().item<bool>();
         });
}

void require_effect(const Model& model) {
  const auto layers = lora_layers(model);
  const auto stacks = lora_stacks(model);
  require(!layers.empty() || !stacks.empty(), "lora: ", model.class_name(), " has no adapter");
  const auto check = [](const std::string& name, const torch::nn::Module& adapter) {
    for (const auto& item : adapter.named_parameters())
      require(torch::isfinite(item.value()).all().item<bool>(), "lora: ", name, ".", item.key(),
              " holds NaN or infinity: the adapter is broken (did training diverge?)");
  };
  for (const auto& layer : layers) check(layer.name, *layer.adapter);
  for (const auto& stack : stacks) check(stack.name, *stack.adapter);
  require(has_effect(model), "lora: the adapter changes nothing: lora_B of all ",
          layers.size() + stacks.size(), " layers is zero (was it trained?)");
}

MergedLora merge_lora(Model& model) {
  MergedLora merged{.layers = lora_layers(model), .stacks = lora_stacks(model), .row_scale = {}};
  require(!merged.layers.empty() || !merged.stacks.empty(), "lora: ", model.class_name(),
          " has no adapter to merge");
  torch::NoGradGuard no_grad;
  for (const auto& [name, linear, adapter] : merged.layers) {
    Tensor weight = linear->weight.to(torch::kFloat32) + adapter->delta();
    Tensor scale;
    if (adapter->magnitude.defined()) {
      scale = adapter->magnitude.to(torch::kFloat32) / weight.norm(2, {1});
      weight = weight * scale.unsqueeze(1);
    }
    merged.row_scale.push_back(scale);
    linear->weight.copy_(weight);
    linear->take_adapter();
  }
  for (const auto& [name, module, stack, adapter] : merged.stacks) {
    Tensor(stack.weight).copy_(stack.weight.to(torch::kFloat32) + adapter->delta());
    module->take_adapter(stack.name);
  }
  set_base_requires_grad(model, true);
  return merged;
}

void unmerge_lora(Model& model, const MergedLora& merged) {
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < merged.layers.size(); ++i) {
    const auto& [name, linear, adapter] = merged.layers[i];
    Tensor weight = linear->weight.to(torch::kFloat32);
    if (merged.row_scale[i].defined()) weight = weight / merged.row_scale[i].unsqueeze(1);
    linear->weight.copy_(weight - adapter->delta());
    linear->set_adapter(adapter);
  }
  for (const auto& [name, module, stack, adapter] : merged.stacks) {
    Tensor(stack.weight).copy_(stack.weight.to(torch::kFloat32) - adapter->delta());
    module->set_adapter(stack.name, adapter);
  }
  set_base_requires_grad(model, false);
}

}  // namespace cosmos::modules
