#include "trainer/recipes/reference_model.h"

#include "modules/core/hollow.h"
#include "modules/core/linear.h"
#include "modules/core/weight_stacks.h"
#include "modules/hub/model_weights.h"

namespace cosmos::trainer {
namespace {

using modules::LanguageModel;

// While one lives, the model computes without its adapters.
class AdaptersOff {
 public:
  explicit AdaptersOff(const LanguageModel& model) {
    for (const auto& [name, linear] : modules::named_linears(model))
      if (linear->adapter()) taken_.emplace_back(linear, linear->take_adapter());
    for (const auto& [name, module] : modules::named_stacks(model))
      for (const auto& stack : module->stacks())
        if (stack.adapter)
          stacks_.push_back({module, stack.name, module->take_adapter(stack.name)});
  }
  ~AdaptersOff() {
    for (const auto& [linear, adapter] : taken_) linear->set_adapter(adapter);
    for (const auto& [module, name, adapter] : stacks_) module->set_adapter(name, adapter);
  }
  AdaptersOff(const AdaptersOff&) = delete;
  AdaptersOff& operator=(const AdaptersOff&) = delete;

 private:
  struct OfStack {
    std::shared_ptr<modules::WeightStacksImpl> module;
    std::string name;
    std::shared_ptr<modules::StackAdapter> adapter;
  };
  std::vector<
      std::pair<std::shared_ptr<modules::LinearImpl>, std::shared_ptr<modules::LinearAdapter>>>
      taken_;
  std::vector<OfStack> stacks_;
};

bool has_adapters(const LanguageModel& model) {
  for (const auto& [name, linear] : modules::named_linears(model))
    if (linear->adapter()) return true;
  for (const auto& [name, module] : modules::named_stacks(model))
    for (const auto& stack : module->stacks())
      if (stack.adapter) return true;
  return false;
}

std::shared_ptr<LanguageModel> frozen_copy(const LanguageModel& model) {
  std::shared_ptr<LanguageModel> copy;
  {
    const modules::SkipInit skip;
    copy = std::make_shared<LanguageModel>(model.config());
  }
  const Tensor first = model.parameters().front();
  modules::cast_model(*copy, first.scalar_type(), first.device());
  modules::load_weights(*copy, modules::file_tensors(model), "the reference model");
  for (auto& parameter : copy->parameters()) parameter.set_requires_grad(false);
  copy->eval();
  return copy;
}

}  // namespace

ReferenceModel::ReferenceModel(std::shared_ptr<LanguageModel> model) : model_(std::move(model)) {
  if (has_adapters(*model_)) return;
  require(
      !modules::is_hollow(model_->parameters().front()),
      "the reference model: expected lora, or one process, since no rank holds the whole model");
  copy_ = frozen_copy(*model_);
}

TokenLogProbs ReferenceModel::log_probs(const PackedConversations& packed, double temperature) {
  const torch::NoGradGuard no_grad;
  if (copy_) return token_log_probs(*copy_, packed, temperature);
  const AdaptersOff off(*model_);
  return token_log_probs(*model_, packed, temperature);
}

}  // namespace cosmos::trainer
