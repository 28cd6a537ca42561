#pragma once

#include "ops/core/float8_bits.h"

#include "cuda_fp16.h"

using __nv_fp8_storage_t = uint8_t;
using __half_raw = __half;
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };

/// __NV_SATFINITE alone.
inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t,
                                                __nv_fp8_interpretation_t kind) {
  return kind == __NV_E4M3 ? cosmos::ops::float_to_float8<cosmos::ops::E4M3>(x)
                           : cosmos::ops::float_to_float8<cosmos::ops::E5M2>(x);
}

inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t x, __nv_fp8_interpretation_t kind) {
  return __float2half(kind == __NV_E4M3 ? cosmos::ops::float8_to_float<cosmos::ops::E4M3>(x)
                                        : cosmos::ops::float8_to_float<cosmos::ops::E5M2>(x));
}
