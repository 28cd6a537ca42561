#pragma once

// What chosen steps did, operator by operator: LibTorch's own profiler (Kineto), written as a
// Chrome trace that chrome://tracing and https://ui.perfetto.dev open. Phases and waits for other
// ranks are ranges in it, which the flight record marks (trainer/resilience/flight_record.h);
// c10d's own ranges ("gloo:...", NCCL's kernels) are the collectives. On a GPU its kernels are
// there, too.

#include <cstdint>
#include <filesystem>
#include <memory>

#include "trainer/config/config.h"
#include "trainer/resilience/flight_record.h"

namespace cosmos::trainer {

class StepProfile {
 public:
  /// Nothing happens before the first chosen step. `file` is written when the last one has ended,
  /// its folder made.
  StepProfile(ProfileConfig config, std::filesystem::path file);
  ~StepProfile();
  StepProfile(const StepProfile&) = delete;
  StepProfile& operator=(const StepProfile&) = delete;

  /// Around a step, with the number it has in metrics.jsonl, on one thread.
  void begin(int64_t step);
  /// True when the trace has been written.
  bool end(int64_t step);
  const std::filesystem::path& file() const { return file_; }

 private:
  ProfileConfig config_;
  std::filesystem::path file_;
  bool running_ = false;
  std::unique_ptr<ProfileRange> range_;  ///< of the step
};

}  // namespace cosmos::trainer
