#pragma once

// The checkpoints of a run as its ranks make and find them. In the background: a save copies the
// state and returns; threads write the copy while the training goes on, and a later poll() gives
// the checkpoint its name. A save that fails is reported and changes nothing else.

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "trainer/checkpoint/store.h"
#include "trainer/config/config.h"
#include "trainer/loop/data_parallel.h"

namespace cosmos::trainer {

/// Every rank makes one and calls its methods at the same time.
class Checkpoints {
 public:
  using Log = std::function<void(const std::string&)>;

  /// `run`: the run's folder. `parallel` is kept. `moves` is called now and then while a wait for
  /// the disk gets on.
  Checkpoints(const std::filesystem::path& run, const TrainerConfig& config,
              const DataParallel& parallel, Log log, std::function<void()> moves = {});
  /// Waits for threads. A save that was not settled is lost.
  ~Checkpoints();

  /// Begins to save what `files` gives, after the save before has ended. On return the state may
  /// change. `info` goes into the manifest. Nothing to do when the step is saved already.
  void save(int64_t step, const Json& info, const std::function<StateFiles()>& files);
  /// Ends a background save that all ranks have written; to be called between steps.
  void poll();
  /// Waits for the save under way, if any, and ends it.
  void settle();

  /// Whether the last save that ended worked; true before the first.
  bool good() const { return good_; }
  /// How long the last save took, 0 before the first.
  double last_seconds() const { return last_seconds_; }
  /// Of the newest checkpoint that this run made or went on from; -1: none.
  int64_t saved_step() const { return saved_step_; }
  std::filesystem::path path(int64_t step) const { return stores_[0].path(step); }

  /// The newest checkpoint that is intact, in either location; empty when there is none. All ranks
  /// read a part each. Throws Error when there are some and all are damaged.
  std::filesystem::path newest();
  /// Throws Error naming what is damaged in `checkpoint`.
  void verify(const std::filesystem::path& checkpoint);
  /// The run goes on from here: later checkpoints are set aside.
  void resumed(int64_t step, const std::filesystem::path& from);
  /// Whether the run's folder has any.
  bool any() const;

 private:
  struct Job {
    int64_t step = 0;
    Json info;
    StateFiles files;
    std::vector<FileSums> sums;       ///< by location
    std::vector<std::string> errors;  ///< by location; "": none
    std::chrono::steady_clock::time_point begin;
    double blocked = 0;  ///< seconds of the training
    std::atomic<int64_t> written{0};
    std::atomic<bool> done{false};
    std::thread thread;
  };

  void prepare(Job& job, const std::function<StateFiles()>& files);
  void write(Job& job);
  void wait_for_writers();
  void commit(const Job& job, const std::vector<FileSums>& sums,
              const std::vector<std::string>& errors);
  void failed(int64_t step, const std::string& error);
  std::string damage(const std::filesystem::path& checkpoint) const;
  bool one_writer_a_file();

  const CheckpointConfig config_;
  const DataParallel& parallel_;
  Log log_;
  std::function<void()> moves_;
  std::vector<CheckpointStore> stores_;  ///< the run's folder, the second location
  Staging staging_;
  std::unique_ptr<Job> job_;
  std::thread sweeper_;
  int64_t saved_step_ = -1;
  bool good_ = true;
  double last_seconds_ = 0;
  bool probed_ = false, one_writer_ = false;
};

}  // namespace cosmos::trainer
