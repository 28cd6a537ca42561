#pragma once

// Text from a language model: prompts of any lengths together, each in its own row of a key-value
// cache, without padding.

#include <functional>

#include "modules/vlm/sampling.h"
#include "modules/vlm/sequence.h"

namespace cosmos::modules {

struct GenerateOptions {
  SamplingConfig sampling;
  int64_t max_new_tokens = 128;
  std::vector<int64_t> stop_tokens;  ///< eos_token_id: an answer ends with the first of them
  int64_t answers = 1;               ///< a prompt: each is read once, then drawn from so many times
  uint64_t seed = 0;
  uint64_t first_index = 0;  ///< draws of answer i are a function of (seed, first_index + i)
  /// Called with (answer, token) as soon as a token is there; false ends that answer.
  std::function<bool(int64_t answer, int64_t token)> on_token;
};

struct Answer {
  std::vector<int64_t> tokens;    ///< the stop token included
  std::vector<double> log_probs;  ///< log p of each token under temperature alone
  bool stopped = false;           ///< by a stop token, not by max_new_tokens
};

/// options.answers answers a prompt, those of the first prompt first. The model is not trained
/// here: no gradients. Throws Error on a prompt that does not fit the model.
std::vector<Answer> generate(LanguageModel& model, const std::vector<Sequence>& prompts,
                             const GenerateOptions& options);

/// The method "generate" of cosmos-forward, as transformers' generate(): LanguageModelInputs'
/// names, padded on the left, and the numbers `max_new_tokens` (128) and `repetition_penalty` (1)
/// -> the likeliest tokens: `sequences`, int64 [B, L + max_new_tokens].
TensorMap run_generate(LanguageModel& model, TensorMap inputs);

/// Log-probabilities of the tokens from `begin` on, each given those before it, with gradient where
/// the model has one: float32 [length - begin] for each sequence. 1 <= begin <= length.
Tensors answer_log_probs(LanguageModel& model, const std::vector<Sequence>& sequences,
                         const std::vector<int64_t>& begin, double temperature = 1);

}  // namespace cosmos::modules
