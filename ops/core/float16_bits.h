#pragma once

// IEEE binary16 by integer arithmetic: the same bits from every compiler (Clang 14 has _Float16 for
// AVX512-FP16 alone). Straight-line code that loops vectorise. Internal linkage: see simd.h.

#include <cstdint>
#include <cstring>

namespace cosmos::ops {
namespace {

inline float float16_to_float(uint16_t half) {
  // The exponent is moved by a multiplication, which also normalises subnormals.
  uint32_t bits = static_cast<uint32_t>(half & 0x7fffu) << 13;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  value *= 0x1p112f;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((half & 0x7c00u) == 0x7c00u) bits |= 0x7f800000u;  // infinity and NaN
  bits |= static_cast<uint32_t>(half & 0x8000u) << 16;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

/// Rounds to nearest, ties to even; too large becomes infinity, NaN stays NaN.
inline uint16_t float_to_float16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  // Below 2^-14 the addition of 0.5 lets the unit round at the place where subnormals end.
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  const float shifted = magnitude + 0.5f;
  uint32_t subnormal;
  std::memcpy(&subnormal, &shifted, sizeof(subnormal));
  subnormal -= 0x3f000000u;
  const uint32_t normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  const uint32_t special = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t half = bits >= 0x47800000u ? special : (bits < 0x38800000u ? subnormal : normal);
  return static_cast<uint16_t>(sign | half);
}

}  // namespace
}  // namespace cosmos::ops
