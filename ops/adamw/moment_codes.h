#pragma once

// Moments of AdamW in 8 bits: a code an element and a float32 scale a block of 256 elements, the
// block's largest magnitude (as Dettmers et al. 2022, 8-bit Optimizers; the codes are powers
// instead of their table, so that a code is computed, not looked up).
//
//   first moment    m = scale * sign(c) * (c / 127)²,  c in [-127, 127]
//   second moment   v = scale * (c / 255)⁴,            c in [0, 255]; 0 only for v = 0
//
// Squares give small values finer steps; sqrt(v), by which an update is divided, has the steps of
// m. An update moves v by a thousandth, less than half a step of its code, and would be lost in
// rounding every time. So codes are rounded up or down by chance, in proportion to where the value
// lies: right on average. Chance is a function of element and update: the same bits on every run.

#include <cmath>
#include <cstdint>

#include "ops/core/host_device.h"

namespace cosmos::ops {

inline constexpr int64_t kMomentBlock = 256;

// Internal linkage: the copies of CPU loops for different instruction sets must never be merged.
namespace {

/// Uniform in [0, 1) from an element and a number of updates (the finaliser of MurmurHash3).
COSMOS_HOST_DEVICE inline float moment_chance(uint32_t element, uint32_t update) {
  uint32_t h = element * 0x9e3779b9u ^ update * 0x85ebca6bu;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  h ^= h >> 16;
  return static_cast<float>(h >> 8) * 0x1p-24f;
}

/// 1 / scale, 0 for a block of zeros.
COSMOS_HOST_DEVICE inline float inverse_scale(float scale) {
  return scale > 0 ? 1 / scale : 0;
}

// Encoding rounds to the code below or above; `chance` in [0, 1) is held against where x lies
// between their values: 0.5 rounds to nearest, a uniform number right on average.

COSMOS_HOST_DEVICE inline int8_t encode_first(float m, float inverse, float chance) {
  const float x = fabsf(m) * inverse * (127.f * 127.f);  // c² of the code c
  const float root = sqrtf(x);
  const int32_t below = root < 126 ? static_cast<int32_t>(root) : 126;
  const float c = static_cast<float>(below);
  const int32_t code = below + (chance * (2 * c + 1) < x - c * c ? 1 : 0);
  return static_cast<int8_t>(m < 0 ? -code : code);
}
COSMOS_HOST_DEVICE inline float decode_first(int8_t code, float scale) {
  const float c = static_cast<float>(code) * (1.f / 127);
  return scale * c * fabsf(c);
}

COSMOS_HOST_DEVICE inline uint8_t encode_second(float v, float inverse, float chance) {
  const float x = v * inverse;
  const float root = 255 * sqrtf(sqrtf(x));
  const int32_t below = root < 254 ? static_cast<int32_t>(root) : 254;
  const float low = static_cast<float>(below) * (1.f / 255), low2 = low * low;
  const float high = static_cast<float>(below + 1) * (1.f / 255), high2 = high * high;
  const float from = low2 * low2, to = high2 * high2;
  const int32_t code = below + (chance * (to - from) < x - from ? 1 : 0);
  return static_cast<uint8_t>(code == 0 && v > 0 ? 1 : code);
}
COSMOS_HOST_DEVICE inline float decode_second(uint8_t code, float scale) {
  const float c = static_cast<float>(code) * (1.f / 255), square = c * c;
  return scale * square * square;
}

}  // namespace
}  // namespace cosmos::ops
