#pragma once

// The recipe "language" and data set "token-rows" of the trainer's tests: a language model learns
// made-up sequences, the same in every process.

#include "modules/lora/lora.h"
#include "modules/vlm/language_model.h"
#include "trainer/core/recipe.h"
#include "trainer/data/registry.h"

namespace cosmos::test {

constexpr int64_t kLanguageTokens = 8;

/// Six sequences of 8 of 32 tokens.
class TokenRows : public trainer::Dataset {
 public:
  int64_t size() const override { return 6; }
  trainer::Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    const Tensor i = torch::arange(kLanguageTokens, torch::kInt64);
    const Tensor row = (i * i * 3 + i * (item + 2) + 5 * item).remainder(32);
    return {.index = sample_index, .tensors = {{"tokens", row}}, .text = {}};
  }
};

/// {"class": ..., "config": {...} of the class, "lora": {...}}
class LanguageRecipe : public trainer::Recipe {
 public:
  explicit LanguageRecipe(Json config) : config_(std::move(config)) {}

  std::shared_ptr<modules::Model> model() override {
    if (model_) return model_;
    model_ = std::make_shared<modules::LanguageModel>(modules::LanguageModelConfig::from_json(
        config_.at("class").get<std::string>(), config_.at("config"), "config.json"));
    if (!config_.contains("lora")) return model_;
    modules::LoraConfig lora;
    modules::read_fields(config_.at("lora"), lora, "lora", modules::UnknownKeys::kRefuse);
    apply_lora(*model_, lora, 5);
    return model_;
  }
  std::shared_ptr<trainer::Dataset> train_data() override { return std::make_shared<TokenRows>(); }
  std::shared_ptr<trainer::Dataset> validation_data() override { return nullptr; }

  trainer::Loss loss(const trainer::Batch& batch, const trainer::StepContext& context) override {
    prepare(batch, context);
    const Tensor tokens = batch.tensors.at("tokens");
    modules::LanguageModelInputs inputs;
    inputs.input_ids = tokens;
    const Tensor hidden = model_->forward(inputs);
    // Each token's next one; the last has none.
    Tensor target = tokens.roll(-1, 1);
    target.select(1, -1).fill_(-100);
    const Tensor value =
        model_->run_head(hidden, [target](const Tensor& x, const modules::Linear& head) {
          return modules::linear_cross_entropy(x, head, target, -100, 0.1, 1e-3);
        });
    return {.value = value, .metrics = {}, .by_label = {}};
  }

  void prepare(const trainer::Batch& batch, const trainer::StepContext& context) override {
    if (config_.contains("lora") && config_.at("lora").value("dropout", 0.0) > 0)
      set_dropout_samples(*model_, context.seed, batch.indices);
  }

 private:
  Json config_;
  std::shared_ptr<modules::LanguageModel> model_;
};

inline void register_language() {
  trainer::register_recipe("language", [](const Json& config, const std::string&) {
    return std::make_shared<LanguageRecipe>(config);
  });
}

}  // namespace cosmos::test
