#pragma once

// The model as it was before training, for losses that compare with it.

#include "trainer/recipes/packed_conversations.h"
#include "trainer/recipes/sft_config.h"

namespace cosmos::trainer {

class ReferenceModel {
 public:
  /// With adapters on `model` nothing is copied: they are taken off for the reference's turn. Else
  /// its weights are copied now.
  explicit ReferenceModel(std::shared_ptr<modules::LanguageModel> model);

  /// Log-probabilities of the learned tokens, without gradients.
  TokenLogProbs log_probs(const PackedConversations& packed, double temperature = 1);

 private:
  std::shared_ptr<modules::LanguageModel> model_, copy_;
};

}  // namespace cosmos::trainer
