#pragma once

// Activation checkpointing from outside the model: a BlockRunner that keeps a block's inputs
// instead of its intermediate results and runs the block again in backward (Chen et al., 2016).

#include <memory>
#include <string>

#include "modules/core/run_block.h"

namespace cosmos::trainer {

/// `mode`: "none" (returns null), "full" (every block), "keep_attention" (every block, but results
/// of attention are kept, kept_results.h) or "selective" (blocks whose index, the last number of
/// their name, is a multiple of `every`; blocks without a number stay as they are).
///
/// Blocks must compute the same again: no dropout but from counters, no state. Post-accumulate-grad
/// hooks on parameters fire once a backward; plain tensor hooks on them fire twice, once for the
/// inner result and once when it is accumulated.
std::shared_ptr<modules::BlockRunner> make_recompute_runner(const std::string& mode, int64_t every);

}  // namespace cosmos::trainer
