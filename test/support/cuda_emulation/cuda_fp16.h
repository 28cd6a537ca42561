#pragma once

#include "ops/core/float16_bits.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half x) {
  return cosmos::ops::float16_to_float(x.bits);
}
inline __half __float2half(float x) {
  return {cosmos::ops::float_to_float16(x)};
}
