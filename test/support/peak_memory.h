#pragma once

// Bytes that tensors take on the CPU while a function runs.

#include <algorithm>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <memory>
#include <mutex>

namespace cosmos::test {

/// Hears of every allocation of this thread, and of threads that torch starts for it.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, std::size_t, std::size_t, c10::Device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  std::mutex mutex_;
  int64_t now_ = 0, peak_ = 0;
};

/// The most bytes that were allocated at once while fn ran, beyond those at its start.
template <typename Fn>
int64_t peak_bytes(Fn fn) {
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  fn();
  return meter->peak();
}

}  // namespace cosmos::test
