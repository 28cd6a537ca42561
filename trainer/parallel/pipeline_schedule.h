#pragma once

// In which order a rank of a pipeline computes: pure functions, the same on every rank.
//
// The model is cut into stages 0, 1, ... of consecutive blocks; stage s is on rank s % ranks. With
// one stage a rank:
//
//   1f1b         a rank does as many forwards as there are stages behind it, then one forward and
//                one backward in turn (PipeDream-Flush: Narayanan et al., 2021)
//   zero_bubble  the same, but backward is cut in two: gradients of inputs, which others wait for,
//                and gradients of weights, which fill the time in which a rank would wait (ZB-H1:
//                Qi et al., 2023). Rank r owes at most r of the latter, so that memory is 1f1b's.
//
// With several stages a rank, interleaved: micro-batches in groups of as many as there are ranks,
// each group through the rank's first stage, then its second, ... (Narayanan et al., 2021)

#include <cstdint>
#include <string>
#include <vector>

namespace cosmos::trainer {

enum class PipelineSchedule { k1F1B, kInterleaved, kZeroBubble };
/// "1f1b", "interleaved", "zero_bubble".
PipelineSchedule pipeline_schedule(const std::string& name);

struct PipelineAction {
  enum Kind { kForward, kBackward, kWeights };
  Kind kind = kForward;
  int64_t stage = 0;  ///< of all
  int64_t micro_batch = 0;

  bool operator==(const PipelineAction&) const = default;
};

/// What `rank` of `ranks` does in a step of `micro_batches`. `chunks`: stages a rank, 1 unless
/// interleaved, which asks a multiple of `ranks` micro-batches.
std::vector<PipelineAction> pipeline_actions(PipelineSchedule schedule, int64_t rank, int64_t ranks,
                                             int64_t chunks, int64_t micro_batches);

}  // namespace cosmos::trainer
