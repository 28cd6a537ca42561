#pragma once

// Tensor parallelism, from outside the model: slices of its Linears on the mesh's "tensor" ranks as
// its parallel_plan() says, and what the ranks do together around each product (Megatron-LM,
// Shoeybi et al. 2019); with `sequence`, ranks hold parts of the tokens between the products
// (Korthikanti et al. 2022): a gather before and a reduce-scatter after in place of an all-reduce
// after, the same bytes, and less kept for backward.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "trainer/parallel/model_collectives.h"

namespace cosmos::trainer {

/// A parameter that is split: rank r holds the r-th of equal ranges along `dim`.
struct TensorSlice {
  int64_t dim = 0;
  std::vector<int64_t> whole;  ///< its shape on one rank
};
/// By parameter name.
using TensorSlices = std::map<std::string, TensorSlice>;

/// What `ranks` split of the model, adapters included; nothing when ranks = 1. Throws Error where
/// it has no plan or cannot be divided.
TensorSlices tensor_slices(const modules::Model& model, int64_t ranks);

/// The shape of what each of `ranks` holds.
std::vector<int64_t> slice_sizes(const TensorSlice& slice, int64_t ranks);
/// The rank's slice of the whole tensor, a view.
Tensor slice_of(const Tensor& whole, const TensorSlice& slice, int64_t rank, int64_t ranks);
/// The inverse: every rank of `group` gives its slice and has the whole.
Tensor whole_of(const Tensor& mine, const TensorSlice& slice, const Group& group);

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
