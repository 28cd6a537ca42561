#pragma once

// What the kernels of adamw.h are given: the tensors as pointers, and units of work. A unit is a
// range of one tensor; units have a fixed size, so that sums do not depend on the number of
// threads.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

inline constexpr int64_t kUnitElements = 1 << 15;

struct AdamWTensor {
  DType dtype;
  bool wide_grad;  ///< grad is of the accumulate type, not of dtype
  int64_t size;
  void* param;
  const void* grad;
  void* exp_avg;         ///< accumulate type, or int8_t codes where there are scales
  void* exp_avg_sq;      ///< likewise uint8_t
  float* exp_avg_scale;  ///< one a block of kMomentBlock elements (moment_codes.h), or null
  float* exp_avg_sq_scale;
  const float* step;  ///< updates so far, this one included
  void* master;       ///< or null
  void* ema;          ///< or null
};

/// Elements [begin, begin + kUnitElements) of one tensor, or up to its end.
struct Unit {
  int32_t tensor;
  int64_t begin;
};

struct AdamWStep {
  const AdamWTensor* tensors;
  const Unit* units;
  int64_t tensor_count, unit_count;
  const void* clip;  ///< one number of the accumulate type, or null
  bool clip_is_double;
  double lr;
  double decay;  ///< 1 - lr * weight_decay
  double beta1, beta2, eps, ema_decay;
};

struct NormTensor {
  DType dtype;
  int64_t size;
  const void* data;
};

/// partial[u] = sum of squares of unit u.
struct SquareSums {
  const NormTensor* tensors;
  const Unit* units;
  int64_t tensor_count, unit_count;
  double* partial;
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
// tensors and units are host pointers.
void adamw_step_cuda(const AdamWStep& params, void* stream);
void square_sums_cuda(const SquareSums& params, void* stream);
#endif

}  // namespace cosmos::ops
