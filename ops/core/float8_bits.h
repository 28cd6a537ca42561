#pragma once

// The 8-bit floating-point types by integer arithmetic, straight-line so that loops vectorise:
// E4M3 (torch.float8_e4m3fn: bias 7, no infinity, one NaN) and E5M2 (torch.float8_e5m2: a float16
// cut short). The same bits as torch's casts for every value that torch does not overflow.
// Source: FP8 Formats for Deep Learning (Micikevicius et al., 2022). Internal linkage: see simd.h.

#include <cstdint>
#include <cstring>

namespace cosmos::ops {
namespace {

struct E4M3 {
  static constexpr int kMantissaBits = 3, kBias = 7;
  static constexpr uint32_t kMaxBits = 0x43e00000u;  ///< 448 as float32
  static constexpr float kFromFloat32 = 0x1p120f;    ///< 2^(127 - kBias)
};
struct E5M2 {
  static constexpr int kMantissaBits = 2, kBias = 15;
  static constexpr uint32_t kMaxBits = 0x47600000u;  ///< 57344
  static constexpr float kFromFloat32 = 0x1p112f;
};

/// Rounds to nearest, ties to even; what is too large, infinity too, becomes the largest finite
/// value; NaN stays NaN.
template <typename Format>
inline uint8_t float_to_float8(float x) {
  constexpr int kShift = 23 - Format::kMantissaBits;
  constexpr uint32_t kRebias = static_cast<uint32_t>(127 - Format::kBias) << 23;
  // Below the smallest normal number, adding this power of two lets the unit round at the place
  // where subnormals end.
  constexpr uint32_t kSubnormal = kRebias + (static_cast<uint32_t>(kShift + 1) << 23);
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t sign = (bits >> 24) & 0x80u;
  bits &= 0x7fffffffu;
  const bool nan = bits > 0x7f800000u;
  bits = bits < Format::kMaxBits ? bits : Format::kMaxBits;
  float magnitude, step;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  std::memcpy(&step, &kSubnormal, sizeof(step));
  const float shifted = magnitude + step;
  uint32_t subnormal;
  std::memcpy(&subnormal, &shifted, sizeof(subnormal));
  subnormal -= kSubnormal;
  const uint32_t odd = (bits >> kShift) & 1u;
  const uint32_t normal = (bits - kRebias + ((1u << (kShift - 1)) - 1u) + odd) >> kShift;
  const uint32_t value = bits < kRebias + (1u << 23) ? subnormal : normal;
  return static_cast<uint8_t>(sign | (nan ? 0x7fu : value));
}

template <typename Format>
inline float float8_to_float(uint8_t x) {
  // The exponent is moved by a multiplication, which also normalises subnormals.
  uint32_t bits = static_cast<uint32_t>(x & 0x7fu) << (23 - Format::kMantissaBits);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  value *= Format::kFromFloat32;
  std::memcpy(&bits, &value, sizeof(bits));
  const bool special =
      Format::kMantissaBits == 2 ? (x & 0x7cu) == 0x7cu : (x & 0x7fu) == 0x7fu;  // or infinity
  if (special) bits |= 0x7f800000u;
  bits |= static_cast<uint32_t>(x & 0x80u) << 24;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace
}  // namespace cosmos::ops
