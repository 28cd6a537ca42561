#pragma once

// Elementary functions for the CPU loops: straight-line float code without branches or tables,
// which Clang and GCC vectorise under `omp simd` for every instruction set; float64 asks libm.
// Infinities and NaN come out as from libm. The bounds are tested on every 1009th float
// (test/ops/core/test_simd_math.cpp). The coefficients are minimax fits (Remez) over the reduced
// intervals. For *_simd.cpp only; internal linkage, see simd.h.

#include <cmath>
#include <cstdint>
#include <cstring>

#ifndef COSMOS_ISA
#error "ops/core/simd_math.h is for *_simd.cpp, which CMake compiles with COSMOS_ISA"
#endif

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

/// constant + x * (next + x * (...)): coefficients from the lowest power up.
template <typename... Higher>
inline float polynomial(float x, float constant, Higher... higher) {
  if constexpr (sizeof...(higher) == 0)
    return constant;
  else
    return polynomial(x, higher...) * x + constant;
}

/// e^x as fraction * 2^power, 0.7 < fraction < 1.42, for |x| < 2^20; NaN stays in the fraction.
struct Exponential {
  static constexpr float kRound = 0x1.8p23f;
  float fraction, shifted;

  explicit Exponential(float x) {
    // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to the integer n, which then
    // stands in the low bits. ln 2 is taken in two parts, so that n times the first is exact.
    shifted = x * 1.44269504f + kRound;
    const float n = shifted - kRound;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    fraction =
        polynomial(r, 1.f, 1.f, 0.5f, 0.166665196f, 0.0416662097f, 0.00836881436f, 0.00139503239f);
  }
  int32_t power() const { return static_cast<int32_t>(to_bits(shifted) - to_bits(kRound)); }
};

/// 2^power for -127 < power < 128.
inline float two_to(int32_t power) {
  return from_bits(static_cast<uint32_t>(power + 127) << 23);
}

/// Within 2 ulp, subnormal results too.
inline float exp(float x) {
  const Exponential e(x < -104.f ? -104.f : (x > 89.f ? 89.f : x));
  // The power goes from -150 to 128, beyond what one factor holds.
  const int32_t half = e.power() >> 1, rest = e.power() - half;
  return e.fraction * two_to(half) * two_to(rest);
}
inline double exp(double x) {
  return std::exp(x);
}

/// exp for x <= 0 at two thirds of its cost: below -87, where e^x is 2e-38, it is 0.
inline float exp_nonpositive(float x) {
  const Exponential e(x);
  return x < -87.f ? 0.f : e.fraction * two_to(e.power());
}

/// 2^x for x <= 0 within 2 ulp; below -126 it is 0.
inline float exp2_nonpositive(float x) {
  constexpr float kRound = Exponential::kRound;
  const float shifted = x + kRound;
  const float fraction = polynomial(x - (shifted - kRound), 1.f, 0.693147181f, 0.240226507f,
                                    0.0555036186f, 0.00961801362f, 0.00133903287f, 0.000154716649f);
  const int32_t power = static_cast<int32_t>(to_bits(shifted) - to_bits(kRound));
  return x < -126.f ? 0.f : fraction * two_to(power);
}

/// 1 / (1 + e^-x) within 3 ulp; below -87 it is 0.
inline float sigmoid(float x) {
  const float e = exp_nonpositive(-std::fabs(x));
  return (x < 0.f ? e : 1.f) / (1.f + e);
}
inline double sigmoid(double x) {
  return 1. / (1. + std::exp(-x));
}

/// Within 2 ulp.
inline float tanh(float x) {
  const float a = std::fabs(x), square = a * a;
  const float near = a + a * square *
                             polynomial(square, -0.333332837f, 0.133314908f, -0.0537434965f,
                                        0.020650588f, -0.00571704516f);
  const float e = exp_nonpositive(-2.f * a);
  const float far = (1.f - e) / (1.f + e);
  return std::copysign(a < 0.625f ? near : far, x);
}
inline double tanh(double x) {
  return std::tanh(x);
}

/// Φ(-a) for a >= 0, Φ the standard normal distribution: absolute error 1e-7; relative error 1e-6
/// up to 2, and half a unit of bfloat16 (0.4 %) at most up to 5.5, where Φ is 2e-8. No division.
inline float normal_tail(float a) {
  return exp2_nonpositive(polynomial(a, -0.999999881f, -1.15111148f, -0.459155679f, -0.0526602715f,
                                     0.00730919605f, -0.000331237359f, -0.000103584054f,
                                     2.1637552e-05f, -1.33272306e-06f));
}

/// Within 2 ulp.
inline float erf(float x) {
  const float a = std::fabs(x), square = x * x;
  const float near =
      x + x * polynomial(square, 0.128379166f, -0.37612626f, 0.112836003f, -0.0268544443f,
                         0.00518953521f, -0.000802084105f, 7.88911857e-05f);
  const float far = std::copysign(1.f - 2.f * normal_tail(1.41421356f * a), x);
  return a < 1.f ? near : far;
}
inline double erf(double x) {
  return std::erf(x);
}

/// Natural logarithm within 2 ulp, of subnormals too.
inline float log(float x) {
  constexpr float kInfinity = __builtin_inff();
  // x = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2).
  const bool tiny = x < 0x1p-126f;
  const uint32_t bits = to_bits(tiny ? x * 0x1p23f : x);
  const int32_t power = static_cast<int32_t>(bits - to_bits(0.707106769f)) >> 23;
  const float n = static_cast<float>(power) - (tiny ? 23.f : 0.f);
  const float f = from_bits(bits - (static_cast<uint32_t>(power) << 23)) - 1.f;
  const float square = f * f;
  const float p = polynomial(f, 0.333333164f, -0.250008076f, 0.200022861f, -0.166245967f,
                             0.141812131f, -0.131284028f, 0.128814086f, -0.078602165f);
  const float low = n * -2.12194440e-4f + (p * f * square - 0.5f * square);
  const float value = n * 0.693359375f + (f + low);
  const float beyond = x == 0.f ? -kInfinity : (x < 0.f ? __builtin_nanf("") : x);
  return x > 0.f && x < kInfinity ? value : beyond;
}
inline double log(double x) {
  return std::log(x);
}

}  // namespace simd
}  // namespace
}  // namespace cosmos::ops
