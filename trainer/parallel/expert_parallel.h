#pragma once

// Expert parallelism, from outside the model: the experts of its mixture-of-experts blocks are
// split evenly over the mesh's "expert" ranks, which read different samples. Each block's tokens go
// to the ranks of their experts and come back (GShard, Lepikhin et al. 2020); none is dropped.
//
// What goes and comes has its adjoint as backward: the way back. So an expert's gradient is its sum
// over the tokens of all ranks, and the rule of model_collectives.h holds.

#include <memory>

#include "modules/core/model.h"
#include "trainer/parallel/tensor_slice.h"

namespace cosmos::trainer {

/// The parameters of the model's experts, split over `ranks`; nothing when ranks = 1. Throws Error
/// where there are none, or a number that `ranks` do not divide.
TensorSlices expert_slices(const modules::Model& model, int64_t ranks);

/// Bytes that this rank handed to exchanges so far.
struct ExpertTraffic {
  int64_t bytes = 0;
};

class ExpertParallel {
 public:
  /// Splits the model in place, whose weights are the same on all ranks of `group`, and installs
  /// dispatches. `group` must outlive the model's use.
  ExpertParallel(const modules::Model& model, const Group& group);

  const TensorSlices& slices() const { return slices_; }
  int64_t bytes() const { return traffic_->bytes; }

 private:
  std::shared_ptr<ExpertTraffic> traffic_;
  TensorSlices slices_;
};

}  // namespace cosmos::trainer
