#pragma once

// What the kernel of linear.h is given. Its units are rows of the weight, so outputs.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

struct FewRowLinear {
  DType dtype;   ///< of weight, bias and out: float32 or bfloat16
  int64_t rows;  ///< of x, kFewRows at most
  int64_t in, out;
  const float* x;      ///< [rows, in]
  const void* weight;  ///< [out, in]
  const void* bias;    ///< [out], or null
  void* y;             ///< [rows, out]
};

}  // namespace cosmos::ops
