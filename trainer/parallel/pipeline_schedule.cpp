#include "trainer/parallel/pipeline_schedule.h"

#include <algorithm>

#include "modules/core/tensor.h"

namespace cosmos::trainer {
namespace {

using Actions = std::vector<PipelineAction>;

/// Forwards and backwards of a rank in their orders, and how many forwards come before the first
/// backward.
Actions one_by_one(const Actions& forwards, const Actions& backwards, int64_t warmup) {
  const auto total = static_cast<int64_t>(forwards.size());
  warmup = std::min(warmup, total);
  Actions actions(forwards.begin(), forwards.begin() + warmup);
  for (int64_t i = 0; i < total; ++i) {
    if (warmup + i < total) actions.push_back(forwards[warmup + i]);
    actions.push_back(backwards[i]);
  }
  return actions;
}

/// Weight gradients behind the backwards: at most `owed` late while there are forwards to do, and
/// from then on one after each backward, for which the rank must wait anyway.
Actions with_weights(const Actions& actions, int64_t owed) {
  Actions all;
  int64_t forwards_left = 0, done = 0, backwards = 0;
  for (const auto& action : actions)
    forwards_left += action.kind == PipelineAction::kForward ? 1 : 0;
  const auto pay = [&](int64_t until) {
    for (; done < until; ++done)
      all.push_back({PipelineAction::kWeights, actions.front().stage, done});
  };
  for (const auto& action : actions) {
    all.push_back(action);
    if (action.kind == PipelineAction::kForward)
      --forwards_left;
    else
      ++backwards;
    if (action.kind == PipelineAction::kForward) continue;
    pay(forwards_left > 0 ? backwards - owed : std::max(backwards - owed, done + 1));
  }
  pay(backwards);
  return all;
}

}  // namespace

PipelineSchedule pipeline_schedule(const std::string& name) {
  if (name == "interleaved") return PipelineSchedule::kInterleaved;
  if (name == "zero_bubble") return PipelineSchedule::kZeroBubble;
  require(name == "1f1b", "trainer.parallel.pipeline_schedule: no kind \"", name, "\"");
  return PipelineSchedule::k1F1B;
}

Actions pipeline_actions(PipelineSchedule schedule, int64_t rank, int64_t ranks, int64_t chunks,
                         int64_t micro_batches) {
  Actions forwards, backwards;
  const int64_t total = micro_batches * chunks;
  for (int64_t i = 0; i < total; ++i) {
    // Groups of `ranks` micro-batches, through one chunk after another.
    const int64_t chunk = chunks == 1 ? 0 : i / ranks % chunks;
    const int64_t micro = chunks == 1 ? i : i / (ranks * chunks) * ranks + i % ranks;
    forwards.push_back({PipelineAction::kForward, chunk * ranks + rank, micro});
    backwards.push_back({PipelineAction::kBackward, (chunks - 1 - chunk) * ranks + rank, micro});
  }
  const int64_t behind = ranks - 1 - rank;
  const int64_t warmup = chunks == 1 ? behind : 2 * behind + (chunks - 1) * ranks;
  const Actions actions = one_by_one(forwards, backwards, warmup);
  return schedule == PipelineSchedule::kZeroBubble ? with_weights(actions, rank) : actions;
}

}  // namespace cosmos::trainer
