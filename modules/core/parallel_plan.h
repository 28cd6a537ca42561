#pragma once

// How a model's products are split over the ranks of tensor parallelism (Megatron-LM, Shoeybi et
// al. 2019; with tokens split in between, Korthikanti et al. 2022). Each model has one beside it;
// the trainer applies it from outside.

#include <string>
#include <vector>

#include "modules/core/linear.h"

namespace cosmos::modules {

/// One Linear that is split. What is not listed is computed by every rank.
struct SplitLinear {
  std::string name;  ///< path in the model: transformer_blocks.3.attn1.to_q
  Split split = Split::kColumn;
  /// Features that stay together (a head's); ranks hold equal numbers of such units.
  int64_t unit = 1;
  /// Whether its outside (input of kColumn, output of kRow) are this rank's tokens, [..., tokens,
  /// features], where tokens are split; text that every rank has whole is not.
  bool tokens = true;
  /// kColumn whose outputs every rank needs, not its own alone: a head. Losses that are made
  /// without logits (linear_cross_entropy) exchange less.
  bool whole_output = false;
};
using ParallelPlan = std::vector<SplitLinear>;

}  // namespace cosmos::modules
