#pragma once

// Tensor parallelism, from outside the model: slices of its Linears on the mesh's "tensor" ranks as
// its parallel_plan() says, and what the ranks do together around each product (Megatron-LM,
// Shoeybi et al. 2019); with `sequence`, ranks hold parts of the tokens between the products
// (Korthikanti et al. 2022): a gather before and a reduce-scatter after in place of an all-reduce
// after, the same bytes, and less kept for backward.

#include <memory>

#include "modules/core/model.h"
#include "trainer/parallel/model_collectives.h"
#include "trainer/parallel/tensor_slice.h"

namespace cosmos::trainer {

/// What `ranks` split of the model, adapters included; nothing when ranks = 1. Throws Error where
/// it has no plan or cannot be divided.
TensorSlices tensor_slices(const modules::Model& model, int64_t ranks);

class TensorParallel {
 public:
  /// Splits the model in place, whose weights are the same on all ranks of `group`, and installs
  /// collectives and, with `sequence`, a token plan around `inner` (the one of context
  /// parallelism).
  TensorParallel(modules::Model& model, const Group& group, bool sequence,
                 std::shared_ptr<const modules::TokenPlan> inner);

  const TensorSlices& slices() const { return slices_; }
  /// Bytes of activations handed to collectives so far.
  int64_t bytes() const { return collectives_->bytes(); }

 private:
  std::shared_ptr<const modules::LinearCollective> make_collective(modules::Split split,
                                                                   bool tokens,
                                                                   bool whole_output) const;
  void install(modules::Model& model, bool sequence) const;

  std::shared_ptr<const ModelCollectives> collectives_;
  TensorSlices slices_;
};

}  // namespace cosmos::trainer
