#pragma once

// The "sft" recipe: teaches a language model, with or without eyes, the assistant's turns of
// conversations.
//
//   {"type": "sft", "model": {"path": "Cosmos-Reason2-2B"}, "data": {"files": ["train.jsonl"]},
//    "lora": {"rank": 8, "alpha": 32}}
//
// A micro-batch is one packed row of all its conversations: nothing is padded, each has positions
// of its own and sees itself alone, so that how they are packed changes nothing. The loss is the
// mean over the learned tokens of a whole step, on all ranks: a token weighs the same whatever it
// is packed with.

#include "trainer/core/recipe.h"
#include "trainer/recipes/packed_conversations.h"
#include "trainer/recipes/sft_config.h"

namespace cosmos::trainer {

class SftRecipe : public Recipe {
 public:
  /// Reads and checks the settings; opens nothing.
  SftRecipe(const Json& config, const std::string& where, EncoderFactory encoder);

  std::shared_ptr<modules::Model> model() override { return language_model(); }
  std::shared_ptr<modules::Model> model_for_plan() override;
  std::shared_ptr<Dataset> train_data() override;
  std::shared_ptr<Dataset> validation_data() override;
  Loss loss(const Batch& batch, const StepContext& context) override;
  std::optional<double> loss_weight(const Batch& batch) const override;
  std::map<std::string, modules::FileContent> adapter_files() override;
  Json resolved_config() const override;

 private:
  std::shared_ptr<modules::LanguageModel> language_model();
  std::shared_ptr<Dataset> open(const ConversationDataConfig& data, const std::string& name);

  SftConfig config_;
  std::string where_;
  EncoderFactory make_encoder_;
  std::shared_ptr<modules::LanguageModel> model_;
  std::shared_ptr<const modules::ConversationEncoder> encoder_;
  std::shared_ptr<Dataset> train_, validation_;
};

std::shared_ptr<Recipe> make_sft_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
