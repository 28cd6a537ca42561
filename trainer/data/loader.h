#pragma once

// The data loader: reads ahead on worker threads, delivers in order.
//
// Its only state is the step number. What step s reads follows from (seed, s); a sample that cannot
// be read is replaced by another that follows from (seed, sample index). So batches are the same
// for any number of workers, and a resumed run gets the very batches it would have had.

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "trainer/core/dataset.h"
#include "trainer/data/sample_order.h"

namespace cosmos::trainer {

struct LoaderOptions {
  int64_t micro_batch_size = 1;  ///< samples that go through the model together
  int64_t micro_batches = 1;     ///< a step and rank: gradient accumulation
  int64_t rank = 0, world = 1;   ///< data-parallel ranks; global batch = all three multiplied
  uint64_t seed = 0;
  int64_t workers = 2;               ///< threads; 0 reads in next() itself
  int64_t prefetch = 2;              ///< steps kept ready ahead of the one in use
  double max_failed_fraction = 0.1;  ///< of the items; more unreadable ones stop the run
};

/// An item that could not be read.
struct Failure {
  int64_t item = 0;
  std::string name, reason;
};

class DataLoader {
 public:
  DataLoader(std::shared_ptr<Dataset> data, const LoaderOptions& options);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// This rank's micro-batches of `step` (0 is the first). Steps in ascending order come from what
  /// was read ahead; any other step may be asked for, too. Throws Error with the list when more
  /// than max_failed_fraction of the items have failed so far.
  std::vector<Batch> next(int64_t step);

  /// Time the last next() waited for data, and all of them together.
  double last_wait_seconds() const { return last_wait_; }
  double wait_seconds() const { return total_wait_; }

  /// Items met so far that could not be read, each once, in order of first meeting; first those
  /// that the dataset itself left out.
  const std::vector<Failure>& failures() const { return failures_; }

 private:
  struct Loaded {
    Sample sample;
    std::vector<Failure> failures;
    std::exception_ptr fatal;
  };
  /// A step being read.
  struct Slot {
    int64_t step = 0;
    std::vector<SampleOrder::Draw> draws;  ///< this rank's
    std::vector<Loaded> loaded;
    std::size_t taken = 0, done = 0;
  };
  std::shared_ptr<Slot> make_slot(int64_t step);
  Loaded load(const SampleOrder::Draw& draw) const;
  void work();
  std::vector<Batch> deliver(Slot& slot);

  std::shared_ptr<Dataset> data_;
  LoaderOptions options_;
  SampleOrder order_;
  std::mutex mutex_;
  std::condition_variable work_ready_, slot_ready_;
  std::deque<std::shared_ptr<Slot>> slots_;  ///< ascending steps; the front is wanted next
  bool stop_ = false;
  std::vector<Failure> failures_;
  double last_wait_ = 0, total_wait_ = 0;
  std::vector<std::thread> threads_;
};

/// "3 of 40 items could not be read: a.mp4: is empty; ..." (the first ten).
std::string describe_failures(const std::vector<Failure>& failures, int64_t items);

}  // namespace cosmos::trainer
