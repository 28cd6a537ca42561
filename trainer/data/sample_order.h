#pragma once

// Which items a step reads: a pure function of (seed, step), so that a run can continue at any step
// and neither workers nor ranks change what is read.
//
// The global batch is formed first, then dealt to ranks. Sample j of step s has the global sample
// index s * batch + j. All samples of a batch come from one bucket. Each bucket is read in passes,
// a fresh permutation each: sample number n of a bucket of size N is item permutation(n / N)[n %
// N]. An epoch has ceil(N / batch) batches of each bucket, in an order drawn per epoch; so a bucket
// smaller than the batch is met more often than its share.

#include <cstdint>
#include <map>
#include <vector>

#include "trainer/core/dataset.h"

namespace cosmos::trainer {

class SampleOrder {
 public:
  /// Throws Error when the dataset is empty.
  SampleOrder(const Dataset& data, uint64_t seed, int64_t batch_size);

  /// One sample of a step.
  struct Draw {
    int64_t index = 0;  ///< global sample index
    int64_t item = 0;
    int64_t bucket = 0;  ///< position in the list of buckets
  };
  /// The global batch of `step` (0 is the first). Not thread-safe: permutations are kept.
  std::vector<Draw> step(int64_t step);

  /// Item that stands in for the draw's own after `attempt` failures (1, 2, ...): of the same
  /// bucket, a function of (seed, sample index, attempt).
  int64_t replacement(const Draw& draw, int64_t attempt) const;

  int64_t batches_per_epoch() const { return static_cast<int64_t>(schedule_size_); }

 private:
  struct Bucket {
    std::vector<int64_t> items;
    int64_t batches = 0;  ///< an epoch
    int64_t pass = -1;    ///< that `order` belongs to
    std::vector<int64_t> order{};
  };
  int64_t item(std::size_t bucket, int64_t number);
  void shuffle(std::vector<int64_t>& values, uint64_t stream, int64_t pass) const;

  uint64_t seed_;
  int64_t batch_size_;
  int64_t schedule_size_ = 0;
  std::vector<Bucket> buckets_;
  int64_t epoch_ = -1;             ///< that `schedule_` belongs to
  std::vector<int64_t> schedule_;  ///< batch of the epoch -> running number over all buckets
};

}  // namespace cosmos::trainer
