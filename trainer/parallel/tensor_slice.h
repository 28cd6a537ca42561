#pragma once

// What one rank holds of a parameter that ranks split between them: tensor parallelism its
// products, expert parallelism its experts.

#include <map>
#include <string>
#include <vector>

#include "trainer/parallel/group.h"

namespace cosmos::trainer {

/// Rank r of the mesh's `axis` holds the r-th of equal ranges along `dim`.
struct TensorSlice {
  int64_t dim = 0;
  std::vector<int64_t> whole;  ///< the parameter's shape on one rank
  std::string axis = "tensor";
};
/// By parameter name.
using TensorSlices = std::map<std::string, TensorSlice>;

/// The shape of what each of `ranks` holds.
std::vector<int64_t> slice_sizes(const TensorSlice& slice, int64_t ranks);
/// The rank's slice of the whole tensor, a view.
Tensor slice_of(const Tensor& whole, const TensorSlice& slice, int64_t rank, int64_t ranks);

/// Leaves this rank's slices in the model's parameters.
void take_slices(const torch::nn::Module& model, const TensorSlices& slices, const Group& group);

}  // namespace cosmos::trainer
