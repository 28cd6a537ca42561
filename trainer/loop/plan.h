#pragma once

// What a run will need, before anything is allocated or read: for `cosmos-train --plan`.

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/core/recipe.h"

namespace cosmos::trainer {

/// Bytes are of one rank, the one with the largest shards; of a pipeline, the one that holds most.
struct Plan {
  int64_t parameters = 0;
  int64_t trained = 0;
  int64_t shard = 1, replica = 1;   ///< ranks that share one copy of the state; copies
  int64_t expert = 1;               ///< of the ranks of a copy: those that hold other experts
  int64_t tensor = 1;               ///< ranks that hold slices of each of those
  int64_t context = 1;              ///< ranks that share the tokens of a sample
  int64_t pipeline = 1;             ///< ranks that hold different blocks
  double flops_per_step = 0;        ///< 0: the recipe does not say
  double activation_bytes = 0;      ///< of the micro-batches held at once; 0: the recipe is silent
  double working_bytes = 0;         ///< beside them while a block's backward runs
  double weight_bytes = 0;          ///< the model in its precision; a sharded one in float32
  double gradient_bytes = 0;        ///< float32, when an update begins
  double backward_bytes = 0;        ///< gradients that backward leaves, before they are summed
  double block_bytes = 0;           ///< gradients of the largest block, whole
  double sum_bytes = 0;             ///< sharded: whole gradients kept over micro-batches, float32
  double gathered_bytes = 0;        ///< sharded: blocks that are whole at a time
  double away_bytes = 0;            ///< state on the host or a disk, not on the device
  double offloaded_bytes = 0;       ///< activations that wait there
  double staging_bytes = 0;         ///< a checkpoint's copy of the state, in host memory
  double decoded_bytes = 0;         ///< 8-bit moments in float32, as a checkpoint has them
  bool on_host = true;              ///< the device is the CPU: the copy is in the same memory
  double gather_traffic = 0;        ///< bytes of all-gathers in a step, all ranks' parts
  double reduce_traffic = 0;        ///< bytes of reduce-scatters in a step
  double tensor_traffic = 0;        ///< bytes of activations that collectives move in a step
  double context_traffic = 0;       ///< bytes received in a step for attention over all tokens
  double pipeline_traffic = 0;      ///< bytes sent to other stages in a step
  double tokens = 0;                ///< of a sample; 0: the recipe does not say
  double optimizer_bytes = 0;       ///< AdamW's two moments, float32
  double master_bytes = 0;          ///< float32 copies under bf16
  double ema_bytes = 0;             ///< float32 averages
  double available_bytes = 0;       ///< free memory here; 0: unknown
  std::vector<std::string> advice;  ///< what to change when it does not fit

  int64_t ranks() const { return shard * replica * tensor * pipeline; }
  /// The most at once, on the device: as backward begins, as it ends, in the update, or while
  /// a checkpoint is written.
  double total_bytes() const;
  /// Parameters, gradients and what the optimiser keeps, as an update begins.
  double state_bytes() const {
    return weight_bytes + gradient_bytes + optimizer_bytes + master_bytes;
  }
  bool accumulates = false;  ///< micro-batches' gradients are there when the next one runs
};

/// Counts on the model's shape (Recipe::model_for_plan); weights are neither read nor initialised.
/// `ranks` as DataParallel has them: trainer.parallel says how they share the model.
Plan make_plan(const Config& config, Recipe& recipe, int64_t ranks = 1);

/// The share of blocks whose forward runs twice.
double recomputed_fraction(const TrainerConfig& config);

/// The plan as a table of text.
std::string format_plan(const Plan& plan, const Config& config);

}  // namespace cosmos::trainer
