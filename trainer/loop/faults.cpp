// What a run does about steps that went wrong, and about ranks that hang.

#include <cmath>

#include "trainer/loop/trainer.h"

namespace cosmos::trainer {

std::string Trainer::describe_fault(const StepResult& result,
                                    const std::vector<Batch>& batches) const {
  std::string samples;
  for (const Batch& batch : batches)
    for (const int64_t index : batch.indices)
      samples += (samples.empty() ? "" : ", ") + std::to_string(index);
  std::ostringstream text;
  text << "step " << step_ + 1 << ": loss is " << result.loss << " and the gradient norm "
       << result.grad_norm << (result.fault == "spike" ? ", a spike" : "") << " (global samples "
       << samples << "; lr " << result.lr << "; precision " << config_.trainer.precision << ")";
  return text.str();
}

/// Every rank has the same numbers before it, and does the same. The update was left out already.
void Trainer::answer_fault(const StepResult& result, const std::vector<Batch>& batches) {
  const TrainerConfig& t = config_.trainer;
  const std::string& answer = result.fault == "spike" ? t.on_spike : t.on_nonfinite;
  const std::string what = describe_fault(result, batches);
  if (answer == "skip") {
    guard_.left_out();
    folder_.log(what + "; its update is left out");
    return;
  }
  checkpoints_.settle();
  if (answer == "roll_back" && checkpoints_.saved_step() >= 0) {
    folder_.log(what + "; going back");
    return roll_back();
  }
  const std::string newest =
      checkpoints_.saved_step() < 0
          ? (answer == "roll_back" ? "; there is no checkpoint to go back to" : "")
          : "; newest checkpoint: " + checkpoints_.path(checkpoints_.saved_step()).string();
  fail(what, ". The update was left out and nothing was saved", newest,
       ". Look at grad_norm in metrics.jsonl before this step: if it grew, lower "
       "trainer.optimizer.lr or lengthen trainer.schedule.warmup_steps; if it did not, look at "
       "these samples, and try trainer.precision=fp32");
}

/// The weights go back, the data does not: what led here is not met again.
void Trainer::roll_back() {
  const std::filesystem::path from = checkpoints_.newest();
  const auto step = read_manifest(from).at("step").get<int64_t>();
  guard_.rolled_back(step);
  load_state(from, state());
  folder_.log("weights, optimiser and averages are those of " + from.string() +
              "; the run goes on with step " + std::to_string(step_ + 2));
}

/// Asked between micro-batches: whether a step that is allowed to end would leave too little time
/// to save. The step is then abandoned; the run that goes on makes it again, from the same samples.
bool Trainer::stop_cannot_wait() {
  const double within = config_.trainer.stop_within_s;
  if (within == 0) return false;
  const auto now = std::chrono::steady_clock::now();
  if (!stop_asked_ && options_.should_stop && options_.should_stop()) stop_asked_ = now;
  bool late = false;
  if (stop_asked_) {
    const std::chrono::duration<double> since = now - *stop_asked_;
    late = since.count() + smooth_seconds_ + checkpoints_.last_seconds() > within;
  }
  return parallel_.any(late);
}

void Trainer::start_watchdog() {
  const double seconds = config_.trainer.hang_timeout_s;
  if (seconds == 0 || parallel_.ranks() == 1) return;
  watchdog_ = std::make_unique<Watchdog>(
      *record_, WatchdogOptions{.dir = std::filesystem::path(config_.run.dir) / "watch",
                                .rank = parallel_.rank(),
                                .ranks = parallel_.ranks(),
                                .timeout = std::chrono::milliseconds(std::llround(1000 * seconds)),
                                .print = [this](const std::string& line) {
                                  if (options_.last_words) options_.last_words(line);
                                  folder_.note(line);
                                }});
}

}  // namespace cosmos::trainer
