#pragma once

// Notices that the ranks of a run hang, says which one is to blame and where, and ends them.
//
// Every rank has a thread that writes a heartbeat (its place, how often it got on) to a file of the
// run's folder. Ranks that train together stop together: so when this rank has not got on for the
// timeout, and no heartbeat tells of another that has, the run hangs. The culprit is the rank whose
// heartbeat stands still (its process is stopped or gone), otherwise the one that is behind: that
// began the fewest collectives, or is in none while the others wait. Then each rank leaves its
// record and its threads' stacks beside the heartbeat, the first one left prints the line, and all
// end with code 134, as abort() would, which --max-restarts answers with a restart.

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "trainer/resilience/flight_record.h"

namespace cosmos::trainer {

struct WatchdogOptions {
  std::filesystem::path dir;  ///< shared by the ranks; holds rank-N and, after a hang, rank-N.txt
  int64_t rank = 0, ranks = 1;
  std::chrono::milliseconds timeout{0};
  std::function<void(const std::string&)> print;  ///< the one line
  std::function<void()> end;                      ///< null: _exit(134)
};

class Watchdog {
 public:
  /// `record` is the rank's own and outlives the watchdog. All ranks make one at the same time.
  Watchdog(FlightRecord& record, WatchdogOptions options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// What a heartbeat says.
  struct Beat {
    int64_t rank = 0;
    int64_t beat = 0;      ///< of the watching thread: grows while the process runs
    int64_t progress = 0;  ///< of the training
    FlightRecord::Place place;
    std::string host;
    int64_t pid = 0;
  };
  /// "rank 1 is stuck: ...". `stopped`: ranks whose `beat` stands still.
  static std::string blame(const std::vector<Beat>& beats, const std::vector<bool>& stopped);

 private:
  using Clock = std::chrono::steady_clock;
  struct Seen {
    Beat beat;
    Clock::time_point beat_at, progress_at;  ///< when each last changed, by this process's clock
  };

  void run();
  void write_beat();
  void look(Clock::time_point now);
  bool all_idle(Clock::time_point now) const;
  void report(Clock::time_point now);
  std::filesystem::path file(int64_t rank) const;

  FlightRecord& record_;
  WatchdogOptions options_;
  std::chrono::milliseconds interval_;
  int fd_ = -1;
  int64_t beat_ = 0;
  int64_t progress_ = -1;
  Clock::time_point progress_at_ = Clock::now();
  std::vector<Seen> seen_;  ///< by rank; empty while this rank gets on
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cosmos::trainer
