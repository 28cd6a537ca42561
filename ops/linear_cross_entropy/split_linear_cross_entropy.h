#pragma once

// linear_cross_entropy.h with the classes split over ranks (vocabulary parallelism, Megatron-LM,
// Shoeybi et al. 2019): each holds neighbouring rows of the weight, and logits are exchanged by no
// one: ranks add up five numbers a token.
//
//   state of a range of classes: maximum and sum of exponentials, x of the target, sum of x, and
//   the entropy's sum. States of all ranges merge into that of all classes.
//
// Communication is the caller's: `gather` gives every rank's states, `sum` adds a tensor up over
// the ranks, both without a graph. Backward is the adjoint for the sum of the ranks' results:
// hidden's gradient is this rank's part of it (what its classes contribute, of all ranks' losses),
// the weight's and the bias's are complete for the rows held.
//
// Shapes, dtypes, ignored tokens and errors as in linear_cross_entropy.h; not for float16 without a
// loss scale. Backward computes the logits again, in groups of classes: four products.

#include <ATen/core/Tensor.h>
#include <functional>
#include <optional>
#include <string_view>
#include <tuple>

namespace cosmos::ops {

/// The classes of this rank: weight's rows are [first, first + weight.size(0)) of `classes`.
struct ClassRange {
  int64_t first = 0, classes = 0;
  std::function<at::Tensor(const at::Tensor& mine)> gather;  ///< [...] -> [ranks, ...]
  std::function<at::Tensor(const at::Tensor& mine)> sum;     ///< [...] -> [...]
};

at::Tensor split_linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                      const at::Tensor& target,
                                      const std::optional<at::Tensor>& bias,
                                      const ClassRange& range, int64_t ignore_index = -100,
                                      double label_smoothing = 0, double z_loss = 0,
                                      std::string_view reduction = "mean");

/// Returns {log p, entropy}; the entropy carries no gradient.
std::tuple<at::Tensor, at::Tensor> split_linear_log_probs_entropy(
    const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target,
    const std::optional<at::Tensor>& bias, const ClassRange& range, double temperature = 1,
    int64_t ignore_index = -100);

}  // namespace cosmos::ops
