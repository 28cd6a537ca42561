// CPU loops of fp8_quantize.h. A run is a piece of a row with one scale; fp8_runs takes runs
// [begin, end) of all rows, fp8_tiles takes tiles of 128 x 128.

#include <algorithm>

#include "ops/core/float8_bits.h"
#include "ops/core/simd.h"
#include "ops/fp8/fp8_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

// |x| as an integer: ordered as the numbers are, infinity above them, NaN above all. The maximum of
// integers is exact and keeps NaN, and bfloat16 needs no conversion.
inline int16_t magnitude(const BFloat16& x) {
  return static_cast<int16_t>(x.bits & 0x7fffu);
}
inline int16_t magnitude(const Float16& x) {
  return static_cast<int16_t>(x.bits & 0x7fffu);
}
inline int32_t magnitude(const float& x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7fffffff;
}
inline int64_t magnitude(const double& x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7fffffffffffffff;
}

template <typename T>
float amax_of(const T* x, int64_t n) {
  using Bits = decltype(magnitude(*x));
  Bits largest = 0;
  // Compilers vectorise an integer maximum unasked (and Clang 14 does not when asked by omp simd).
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, magnitude(x[i]));
  T value;
  std::memcpy(&value, &largest, sizeof(value));
  return static_cast<float>(load(value));
}

template <typename T, typename Format>
void cast(const T* x, int64_t n, float inverse, uint8_t* values) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    values[i] = float_to_float8<Format>(static_cast<float>(load(x[i])) * inverse);
}

template <typename Format>
float max_of() {
  return float8_to_float<Format>(Format::kMantissaBits == 3 ? 0x7e : 0x7b);
}

/// The scale of a block whose amax is `amax`, and the outputs that are one number a block.
template <typename Format>
float settle(const Fp8Source& p, const Fp8Side& side, int64_t row, int64_t block, int64_t blocks,
             float amax) {
  if (side.amax) side.amax[row * blocks + block] = amax;
  const int64_t at = row * side.row_stride + block * side.block_stride;
  const bool formula = !side.given || side.given_is_amax;
  const float scale =
      formula ? fp8_scale(side.given ? side.given[at] : amax, max_of<Format>(), p.power_of_two)
              : side.given[at];
  if (writes_scale(side, row, block)) side.scale[at] = scale;
  return scale;
}

inline bool needs_amax(const Fp8Side& side) {
  return !side.given || side.amax;
}

/// One run of n elements: block number `block` of `row`. `values` is null when not wanted.
template <typename T, typename Format>
void quantize_run(const Fp8Source& p, const Fp8Side& side, int64_t row, int64_t block,
                  int64_t blocks, const T* x, int64_t n, uint8_t* values) {
  const float amax = needs_amax(side) ? amax_of(x, n) : 0.f;
  const float scale = settle<Format>(p, side, row, block, blocks, amax);
  if (values) cast<T, Format>(x, n, 1.f / scale, values);
}

template <typename T, typename Format>
void quantize_runs(const Fp8Runs& p, int64_t begin, int64_t end) {
  const int64_t columns = p.source.columns, blocks = blocks_of(columns, p.run);
  for (int64_t k = begin; k < end; ++k) {
    const int64_t row = k / blocks, block = k % blocks, first = block * p.run;
    const int64_t at = row * columns + first;
    quantize_run<T, Format>(
        p.source, p.side, row, block, blocks, static_cast<const T*>(p.source.x) + at,
        std::min(p.run, columns - first), p.side.values ? p.side.values + at : nullptr);
  }
}

struct Tile {
  int64_t row, column;  ///< number of the tile
  int64_t r0, c0, height, width;
};

Tile tile_of(const Fp8Source& p, int64_t k) {
  Tile t;
  const int64_t across = blocks_of(p.columns, kFp8Block);
  t.row = k / across;
  t.column = k % across;
  t.r0 = t.row * kFp8Block;
  t.c0 = t.column * kFp8Block;
  t.height = std::min(kFp8Block, p.rows - t.r0);
  t.width = std::min(kFp8Block, p.columns - t.c0);
  return t;
}

/// Calls fn(column, its elements as floats) for every column of the tile, through strips that stay
/// in L1.
template <typename T, typename Fn>
void visit_columns(const Fp8Source& p, const Tile& t, Fn fn) {
  constexpr int64_t kStrip = 16;
  alignas(64) float strip[kStrip][kFp8Block];
  for (int64_t first = 0; first < t.width; first += kStrip) {
    const int64_t count = std::min(kStrip, t.width - first);
    for (int64_t r = 0; r < t.height; ++r) {
      const T* x = static_cast<const T*>(p.x) + (t.r0 + r) * p.columns + t.c0 + first;
      for (int64_t c = 0; c < count; ++c) strip[c][r] = static_cast<float>(load(x[c]));
    }
    for (int64_t c = 0; c < count; ++c) fn(t.c0 + first + c, strip[c]);
  }
}

template <typename T, typename Format>
void square_tile(const Fp8Tiles& p, const Tile& t) {
  const Fp8Source& s = p.source;
  const T* x = static_cast<const T*>(s.x) + t.r0 * s.columns + t.c0;
  float amax = 0;
  for (int64_t r = 0; needs_amax(p.side) && r < t.height; ++r) {
    const float row = amax_of(x + r * s.columns, t.width);
    amax = row > amax || row != row ? row : amax;  // NaN stays
    if (amax != amax) break;
  }
  const float scale =
      settle<Format>(s, p.side, t.row, t.column, blocks_of(s.columns, kFp8Block), amax);
  const float inverse = 1.f / scale;
  for (int64_t r = 0; p.side.values && r < t.height; ++r)
    cast<T, Format>(x + r * s.columns, t.width, inverse,
                    p.side.values + (t.r0 + r) * s.columns + t.c0);
  if (!p.transposed.values) return;
  visit_columns<T>(s, t, [&](int64_t column, const float* values) {
    cast<float, Format>(values, t.height, inverse, p.transposed.values + column * s.rows + t.r0);
  });
}

template <typename T, typename Format>
void tile_of_runs(const Fp8Tiles& p, const Tile& t) {
  const Fp8Source& s = p.source;
  const int64_t across = blocks_of(s.columns, kFp8Block), down = blocks_of(s.rows, kFp8Block);
  const auto wanted = [](const Fp8Side& side) { return side.values || side.amax; };
  for (int64_t r = t.r0; wanted(p.side) && r < t.r0 + t.height; ++r) {
    const int64_t at = r * s.columns + t.c0;
    quantize_run<T, Format>(s, p.side, r, t.column, across, static_cast<const T*>(s.x) + at,
                            t.width, p.side.values ? p.side.values + at : nullptr);
  }
  if (!wanted(p.transposed)) return;
  visit_columns<T>(s, t, [&](int64_t column, const float* values) {
    uint8_t* to = p.transposed.values;
    quantize_run<float, Format>(s, p.transposed, column, t.row, down, values, t.height,
                                to ? to + column * s.rows + t.r0 : nullptr);
  });
}

template <typename Fn>
void visit_format(Fp8Format format, Fn fn) {
  format == Fp8Format::kE4M3 ? fn(E4M3{}) : fn(E5M2{});
}

}  // namespace

void fp8_runs(const Fp8Runs& p, int64_t begin, int64_t end) {
  visit_dtype(p.source.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    visit_format(p.source.format,
                 [&](auto format) { quantize_runs<T, decltype(format)>(p, begin, end); });
  });
}

void fp8_tiles(const Fp8Tiles& p, int64_t begin, int64_t end) {
  visit_dtype(p.source.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    visit_format(p.source.format, [&](auto format) {
      for (int64_t k = begin; k < end; ++k)
        p.square ? square_tile<T, decltype(format)>(p, tile_of(p.source, k))
                 : tile_of_runs<T, decltype(format)>(p, tile_of(p.source, k));
    });
  });
}

void fp8_dequantize_runs(const Fp8Dequantize& p, int64_t begin, int64_t end) {
  const int64_t blocks = blocks_of(p.columns, p.run);
  visit_dtype(p.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    visit_format(p.format, [&](auto format) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t row = k / blocks, block = k % blocks, first = block * p.run;
        const int64_t n = std::min(p.run, p.columns - first);
        const float scale = p.scale[row / p.row_group * p.row_stride + block * p.block_stride];
        const uint8_t* values = p.values + row * p.columns + first;
        T* out = static_cast<T*>(p.out) + row * p.columns + first;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i)
          store(out[i], float8_to_float<decltype(format)>(values[i]) * scale);
      }
    });
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
