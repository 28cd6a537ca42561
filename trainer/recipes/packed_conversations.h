#pragma once

// What the recipes on language models do with a micro-batch of conversations.

#include <vector>

#include "modules/vlm/sequence.h"
#include "trainer/core/dataset.h"

namespace cosmos::trainer {

/// The sequences of a micro-batch, and what each of their tokens is to be followed by.
struct PackedConversations {
  std::vector<modules::Sequence> sequences;
  /// int64 [tokens of the row]: the next token's label, modules::kIgnoreToken at a sequence's end.
  Tensor targets;
};
PackedConversations unpack_batch(const modules::LanguageModel& model, const Batch& batch);
/// The sequences alone: prompts.
std::vector<modules::Sequence> batch_sequences(const modules::LanguageModel& model,
                                               const Batch& batch);
/// labels: int64 [L] of each sequence.
PackedConversations pack_labelled(std::vector<modules::Sequence> sequences, const Tensors& labels);

/// Where the last run of learned tokens of a sequence begins: its last answer. labels: int64 [L]
int64_t last_answer_begin(const Tensor& labels);

/// A sequence cut before its last answer.
struct AskedAgain {
  modules::Sequence prompt;
  std::vector<int64_t> answer;  ///< the tokens that were learned there
};
std::vector<AskedAgain> ask_again(const modules::LanguageModel& model, const Batch& batch);

/// Tokens of a micro-batch that are learned.
int64_t learned_tokens(const Batch& batch);

/// Log-probabilities of the learned tokens of a packed row, in its order.
struct TokenLogProbs {
  Tensor values;          ///< float32 [tokens], with gradient where the model has one
  Tensor sequence;        ///< int64 [tokens]: which sequence each belongs to
  int64_t sequences = 0;  ///< in the row

  /// Sums over the tokens of each sequence: [tokens] -> [sequences]
  Tensor sum(const Tensor& of) const;
  /// Learned tokens of each sequence, float32 [sequences].
  Tensor count() const;
};
TokenLogProbs token_log_probs(modules::LanguageModel& model, const PackedConversations& packed,
                              double temperature = 1);

}  // namespace cosmos::trainer
