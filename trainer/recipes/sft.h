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
//
// Metrics: tokens, learned_tokens, token_accuracy; in validation with exact_match_tokens also
// exact_match, the share of last answers that the model writes as they stand in the data.

#include "trainer/recipes/language_recipe.h"
#include "trainer/recipes/packed_conversations.h"

namespace cosmos::trainer {

class SftRecipe : public LanguageRecipe {
 public:
  /// Reads and checks the settings; opens nothing.
  SftRecipe(const Json& config, const std::string& where, EncoderFactory encoder);

  Loss loss(const Batch& batch, const StepContext& context) override;
  std::optional<double> loss_weight(const Batch& batch) const override;
  Json resolved_config() const override;

 protected:
  const LanguageRecipeConfig& shared_config() const override { return config_; }

 private:
  Tensor exact_match(const Batch& batch);

  SftConfig config_;
};

std::shared_ptr<Recipe> make_sft_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
