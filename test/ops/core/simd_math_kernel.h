#pragma once

// One loop per function of ops/core/simd_math.h, for its test.

namespace cosmos::ops {

enum class SimdFunction : int {
  kExp,
  kExpNonpositive,
  kExp2Nonpositive,
  kSigmoid,
  kTanh,
  kNormalTail,
  kErf,
  kLog
};

/// out[i] = function(x[i])
struct SimdMath {
  SimdFunction function;
  const float* x;
  float* out;
};

}  // namespace cosmos::ops
