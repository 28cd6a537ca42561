#pragma once

// The ranks of one machine (--nproc N): this program started N times, as torchrun would.
//
// Every child gets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR=127.0.0.1,
// MASTER_PORT and, unless it is set already, OMP_NUM_THREADS = its share of the cores. Output
// passes through. A child is a process group of its own: Ctrl-C reaches it once, through this
// process, so that "a second signal ends at once" (loop/stop_signal.h) stays the user's choice.

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

namespace cosmos::trainer {

/// Starting all ranks again after a failure.
struct Restarts {
  int64_t most = 0;
  /// How far the run got, a number that grows (the step of the newest checkpoint). Required where
  /// `most` is above 0.
  std::function<int64_t()> progress;
  /// Command line of the later starts; empty: the same.
  std::vector<std::string> argv;
};

struct SpawnOptions {
  /// What the other ranks get to find out and end by themselves after one failed ...
  std::chrono::milliseconds grace{3000};
  /// ... and what SIGTERM gets before SIGKILL.
  std::chrono::milliseconds kill_after{5000};
  Restarts restarts;
  std::string program = "/proc/self/exe";
  /// Where the one line about the first failure goes; null: std::cerr.
  std::ostream* log = nullptr;
};

/// Runs `n` ranks with the command line `argv` (argv[0] is the program's name) until all ended.
///
/// SIGINT and SIGTERM go to all of them; ranks that then end, by the signal or with exit code
/// 128 + signal, did as told and hasten nobody: rank 0 may still be saving. When a rank fails
/// otherwise, the others are stopped. Should this process die, its children are killed.
///
/// Then, up to restarts.most times, all ranks are started again: after a signal killed one, unless
/// the start before made no progress either; after an exit code only when there was progress, since
/// a program that says no at once will say it again. Never after SIGINT or SIGTERM.
/// Returns 0, or the exit code of the rank that failed first (128 + signal when one killed it).
/// Throws Error when a process cannot be started. Call it before other threads are started.
int spawn_local(int n, const std::vector<std::string>& argv, const SpawnOptions& options = {});

}  // namespace cosmos::trainer
