#pragma once

// Bytes that tensors take while a function runs.

#include <algorithm>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <memory>
#include <mutex>
#include <utility>

namespace cosmos {

/// Hears of every allocation on the CPU by this thread, and by threads that torch starts for it.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, std::size_t, std::size_t, c10::Device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }
  /// The peak since the last lap.
  int64_t lap() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(peak_, now_);
  }

 private:
  std::mutex mutex_;
  int64_t now_ = 0, peak_ = 0;
};

/// The most bytes that were allocated at once on the CPU while fn ran, beyond those at its start.
template <typename Fn>
int64_t peak_bytes(Fn fn) {
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  fn();
  return meter->peak();
}

/// The same on the device.
template <typename Fn>
int64_t peak_bytes(c10::Device device, Fn fn) {
  if (device.is_cpu()) return peak_bytes(fn);
  constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  auto* allocator = c10::getDeviceAllocator(device.type());
  allocator->resetPeakStats(device.index());
  const auto taken = [&] {
    return allocator->getDeviceStats(device.index()).allocated_bytes[kAll];
  };
  const int64_t before = taken().current;
  fn();
  return taken().peak - before;
}

/// The same part by part: how much was allocated at once since the last lap, beyond what was there
/// when this began.
class PeakLaps {
 public:
  explicit PeakLaps(c10::Device device)
      : device_(device), guard_(c10::DebugInfoKind::PROFILER_STATE, meter_) {
    if (device_.is_cpu()) return;
    allocator_ = c10::getDeviceAllocator(device_.type());
    before_ = bytes().current;
    allocator_->resetPeakStats(device_.index());
  }
  int64_t lap() {
    if (device_.is_cpu()) return meter_->lap();
    const int64_t peak = bytes().peak - before_;
    allocator_->resetPeakStats(device_.index());
    return peak;
  }

 private:
  c10::CachingAllocator::Stat bytes() const {
    constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return allocator_->getDeviceStats(device_.index()).allocated_bytes[kAll];
  }

  c10::Device device_;
  std::shared_ptr<MemoryMeter> meter_ = std::make_shared<MemoryMeter>();
  c10::DebugInfoGuard guard_;
  c10::DeviceAllocator* allocator_ = nullptr;
  int64_t before_ = 0;
};

}  // namespace cosmos
