#pragma once

// Collectives in the middle of a model: of activations, with gradients.
//
// Each is linear, and its backward is its exact adjoint for the sum of all ranks' losses:
// all-gather and reduce-scatter are each other's, all-reduce and the sum of what every rank's copy
// received are one. So the gradient of a parameter is its sum over the ranks that hold it, over the
// number of ranks, wherever it stands: nothing here is divided, and no rank may leave a call out.

#include "trainer/parallel/group.h"

namespace cosmos::trainer {

class ModelCollectives {
 public:
  /// `group` must outlive it.
  explicit ModelCollectives(const Group& group) : group_(group) {}

  /// The ranks' x side by side along `dim`; backward: reduce_scatter.
  Tensor all_gather(const Tensor& x, int64_t dim) const;
  /// This rank's of equal parts along `dim` of the sum of the ranks' x; backward: all_gather.
  Tensor reduce_scatter(const Tensor& x, int64_t dim) const;
  /// The sum of the ranks' x; backward: the same.
  Tensor all_reduce(const Tensor& x) const;
  /// This rank's of equal parts of x along `dim`, no communication; backward: zeros around it.
  Tensor narrow(const Tensor& x, int64_t dim) const;

  const Group& group() const { return group_; }
  /// Bytes handed to collectives so far, whole buffers; an all-reduce counts twice.
  int64_t bytes() const { return bytes_; }

 private:
  // Of one tensor, without graph.
  Tensor gather(const Tensor& x, int64_t dim) const;
  Tensor scatter_sum(const Tensor& x, int64_t dim) const;
  Tensor sum(const Tensor& x) const;

  const Group& group_;
  mutable int64_t bytes_ = 0;
};

}  // namespace cosmos::trainer
