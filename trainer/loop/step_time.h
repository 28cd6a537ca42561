#pragma once

// How long a training step will take on many ranks, from measured speeds: the blocks' products on
// one stream, what FullyShard gathers and reduces on another, each waiting for the other as it
// does. No contention between jobs, no stragglers, no data loading. Gathers in 8 bits count as
// bfloat16's, and what is offloaded as if it were on the device.

#include <cstdint>
#include <string>

#include "trainer/config/config.h"
#include "trainer/core/recipe.h"
#include "trainer/loop/machine_speeds.h"

namespace cosmos::trainer {

struct StepTime {
  double seconds = 0;
  double compute = 0;     ///< of it: products, forward and backward, with recomputation
  double exposed = 0;     ///< waits for gathers, reductions and exchanges of tokens
  double idle = 0;        ///< of a pipeline that fills and drains
  double optimizer = 0;   ///< the update
  double samples = 0;     ///< of all ranks
  double peak_bytes = 0;  ///< of one rank, as Plan has it
};

/// Of the config's layout on `ranks` ranks: `shard` of 0 takes all that the other axes leave, else
/// `replica` grows. Throws Error where the layout does not divide them, or where a link that is
/// used has no speed.
StepTime step_time(Config config, Recipe& recipe, const MachineSpeeds& speeds, int64_t ranks);

/// Weak scaling (the same micro-batches on every rank) and strong scaling (the same samples a
/// step) from the smallest number of ranks that the layout takes to `most`, as Markdown. A peak
/// that is more than speeds.memory_gb is marked.
std::string scaling_tables(const Config& config, Recipe& recipe, const MachineSpeeds& speeds,
                           int64_t most = 16384);

}  // namespace cosmos::trainer
