#pragma once

// What the row kernel of linear_cross_entropy.h is given: logits of some tokens (rows) for some
// neighbouring classes (columns).

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// A token's logits so far, x being the scaled ones with bias. Groups of classes are added one
/// after the other; states of disjoint classes can be merged by the same rule.
template <typename A>
struct ClassState {
  A max;       ///< largest x
  A sum;       ///< sum of exp(x - max)
  A target;    ///< x of the target; NaN until it came
  A total;     ///< sum of x
  A weighted;  ///< sum of (x - max) exp(x - max), where the entropy is asked for
};
inline constexpr int64_t kClassState = 5;

/// For each row: 1. where `reduce`, adds the columns to the state; 2. where `seed` is given,
/// overwrites the logits by seed * d loss / d (hidden weightᵀ + bias), the state being complete,
/// or, where `shares`, by seed * exp(x) / sum of exp(x) over the classes so far. Rows to be
/// ignored: 0.
struct CrossEntropyRows {
  DType dtype;
  int64_t rows, columns;
  int64_t pitch;        ///< elements from row to row
  int64_t first_class;  ///< class of column 0
  int64_t classes;      ///< of all groups together
  int64_t ignore_index;
  double scale, label_smoothing, z_loss;
  void* logits;           ///< hidden weightᵀ, before bias and scale
  const void* bias;       ///< [columns], dtype; or null
  const int64_t* target;  ///< [rows]
  void* state;            ///< [rows], ClassState of the accumulate type
  bool reduce;
  bool resume;          ///< false: `reduce` begins with an empty state
  bool entropy;         ///< `reduce` adds to `weighted` too
  const void* seed;     ///< d result / d loss of a row, accumulate type; null: no gradient
  int64_t seed_stride;  ///< 1, or 0: one seed for all rows
  bool shares;
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void cross_entropy_rows_cuda(const CrossEntropyRows& params, void* stream);
#endif

}  // namespace cosmos::ops
