#pragma once

// Elementary functions for the CPU loops: straight-line float code, which loops vectorise; float64
// asks libm. For *_simd.cpp only; internal linkage, see simd.h. The polynomials are Chebyshev fits
// over the reduced intervals.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace cosmos::ops {
namespace {
namespace simd {

inline uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

/// Within 2 ulp; subnormals, infinities and NaN as libm.
inline float exp(float x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to the integer n, which then
  // stands in the low bits.
  constexpr float kRound = 0x1.8p23f;
  const float bounded = x < -104.f ? -104.f : (x > 89.f ? 89.f : x);
  const float shifted = bounded * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 0.00139336439f;
  p = p * r + 0.00836317521f;
  p = p * r + 0.0416664667f;
  p = p * r + 0.166665763f;
  p = p * r + 0.5f;
  const float value = p * (r * r) + r + 1.f;
  // 2^n in two factors: n reaches 128 and -150, where one factor has no exponent for it.
  const int32_t power = static_cast<int32_t>(to_bits(shifted) - to_bits(kRound));
  const int32_t half = power >> 1, rest = power - half;
  return value * from_bits(static_cast<uint32_t>(half + 127) << 23) *
         from_bits(static_cast<uint32_t>(rest + 127) << 23);
}
inline double exp(double x) {
  return std::exp(x);
}

/// Within 2 ulp.
inline float tanh(float x) {
  const float a = std::fabs(x), square = a * a;
  float p = -0.00610494800f;
  p = p * square + 0.0210036412f;
  p = p * square - 0.0538524985f;
  p = p * square + 0.133327827f;
  p = p * square - 0.333333284f;
  const float near_zero = a + a * square * p;
  const float elsewhere = 1.f - 2.f / (simd::exp(2.f * a) + 1.f);
  return std::copysign(a < 0.625f ? near_zero : elsewhere, x);
}
inline double tanh(double x) {
  return std::tanh(x);
}

}  // namespace simd
}  // namespace
}  // namespace cosmos::ops
