#pragma once

// How the next token is chosen from logits: transformers' processors in transformers' order.

#include <vector>

#include "modules/core/fields.h"
#include "modules/core/random.h"

namespace cosmos::modules {

/// Keys and meaning of transformers' generation_config.json; others in the file are left alone.
struct SamplingConfig {
  bool do_sample = false;         ///< false: the likeliest token
  double temperature = 1;         ///< logits are divided by it
  int64_t top_k = 50;             ///< only the k likeliest (0: all)
  double top_p = 1;               ///< only the likeliest that reach this probability together
  double repetition_penalty = 1;  ///< above 1: tokens that are there already are made less likely

  template <typename Visitor>
  void fields(Visitor& v) {
    v("do_sample", do_sample, "draw tokens; false: the likeliest");
    v("temperature", temperature, "logits are divided by it");
    v("top_k", top_k, "only the k likeliest tokens, 0: all");
    v("top_p", top_p, "only the likeliest tokens that reach this probability together");
    v("repetition_penalty", repetition_penalty, "above 1: tokens already there are less likely");
  }
  /// Throws Error on a value that has no meaning; `where` names the config.
  void check(const std::string& where) const;
};

/// Logits [V], float32 on the CPU, after repetition penalty over the tokens `seen` and, where
/// tokens are drawn, temperature, top-k and top-p; what is ruled out is -inf.
Tensor process_logits(Tensor logits, const SamplingConfig& config,
                      const std::vector<int64_t>& seen);

/// The next token: the first of the likeliest, or a draw from `random`. Throws Error when a logit
/// is NaN.
int64_t choose_token(const Tensor& processed, const SamplingConfig& config, Philox& random);

}  // namespace cosmos::modules
