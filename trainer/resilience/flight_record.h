#pragma once

// What a rank did last: its phases and collectives, with numbers and times, in a ring. Nobody reads
// it until something is wrong; then it says where this rank was. Phases and waits are ranges of a
// profile, too, while one is made (trainer/report/step_profile.h).

#include <ATen/record_function.h>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "modules/hub/json_file.h"
#include "trainer/parallel/group.h"

namespace cosmos::trainer {

/// While it lives, a range of that name in the profile that this thread makes, if it makes one.
class ProfileRange {
 public:
  explicit ProfileRange(const std::string& name);

 private:
  at::RecordFunction function_;
};

class FlightRecord : public GroupObserver {
 public:
  explicit FlightRecord(std::size_t size = 512) : ring_(size) {}

  int64_t started(const std::string& group, const char* operation, int64_t bytes) override;
  void waiting(int64_t number) override;
  void finished(int64_t number) override;

  /// The training is now in `phase` of `step`; time is counted under the phase's name.
  void enter(const char* phase, int64_t step);

  /// A profile's range of the phase ends here, within that of the step.
  void end_range() { phase_range_.reset(); }

  /// The phase gets on (a wait for the disk).
  void moves() { ++progress_; }

  /// Grows whenever something above happens. From any thread, without waiting.
  int64_t progress() const { return progress_.load(std::memory_order_relaxed); }

  struct Place {
    int64_t step = 0;
    std::string phase;
    std::string operation;    ///< "group shard: all_gather", "" outside of collectives
    int64_t collectives = 0;  ///< begun so far
  };
  Place place() const;

  /// Of the collectives' time from begin to end of their wait, the part that this rank did not
  /// spend waiting, since the last call; 1 where there were none.
  double take_overlap();

  /// Seconds by phase since the last call, those spent waiting in collectives apart, as "wait".
  std::map<std::string, double> take_times();

  /// One line an operation, oldest first.
  std::string text() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    int64_t number = 0;
    int64_t step = 0;
    const char* phase = "";
    std::string group;
    const char* operation = "";
    int64_t bytes = 0;
    Clock::time_point started{}, waited{}, finished{};
  };
  Entry* find(int64_t number);
  void close_phase(Clock::time_point now);

  mutable std::mutex mutex_;
  std::vector<Entry> ring_;
  int64_t collectives_ = 0;
  int64_t waiting_ = 0;  ///< number of the operation that is waited for; 0: none
  int64_t step_ = 0;
  const char* phase_ = "start";
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point phase_began_ = begin_;
  double waited_ = 0;                            ///< in this phase
  double under_way_ = 0, under_way_waited_ = 0;  ///< of collectives, since take_overlap()
  std::map<std::string, double> times_;
  std::atomic<int64_t> progress_{0};
  std::unique_ptr<ProfileRange> phase_range_, wait_range_;
};

}  // namespace cosmos::trainer
