// CPU units of dropout.h.

#include <algorithm>

#include "ops/core/philox.h"
#include "ops/core/simd.h"
#include "ops/dropout/dropout_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

constexpr int64_t kWords = kDropoutUnit / 2;

void draw(uint64_t seed, int64_t unit, uint32_t* words) {
  const uint64_t first = static_cast<uint64_t>(unit) * (kWords / 4);  // a multiple of 64
  const auto low = static_cast<uint32_t>(first), high = static_cast<uint32_t>(first >> 32);
#pragma omp simd
  for (uint32_t c = 0; c < kWords / 4; ++c) {
    const PhiloxBlock block = philox(seed, low + c, high, 0, 0);
    words[4 * c] = block.word[0];
    words[4 * c + 1] = block.word[1];
    words[4 * c + 2] = block.word[2];
    words[4 * c + 3] = block.word[3];
  }
}

/// The n elements of x from `first` on, which take bits [kShift, kShift + 16) of the words from
/// `words` on.
template <typename T, int kShift>
void drop(const Dropout& p, int64_t first, int64_t n, const uint32_t* words) {
  using A = Acc<T>;
  const A scale = static_cast<A>(p.scale);
  const uint32_t threshold = p.threshold;
  const auto kept = [=](int64_t i) { return ((words[i] >> kShift) & 0xffffu) >= threshold; };
  if (p.out) {
    const T* x = static_cast<const T*>(p.x) + first;
    T* out = static_cast<T*>(p.out) + first;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(out[i], kept(i) ? load(x[i]) * scale : A(0));
  }
  if (p.sum) {
    const T* update = static_cast<const T*>(p.update) + first;
    T* sum = static_cast<T*>(p.sum) + first;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i)
      store(sum[i], load(sum[i]) + (kept(i) ? load(update[i]) * scale : A(0)));
  }
}

}  // namespace

void dropout(const Dropout& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    alignas(64) uint32_t words[kWords];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t run = item / p.runs.units, begin_place = p.runs.begin(run);
      const int64_t unit = begin_place / kDropoutUnit + item % p.runs.units;
      const int64_t end_place = begin_place + p.runs.length;
      if (unit * kDropoutUnit >= end_place) continue;
      const int64_t to_x = run * p.runs.length - begin_place;  // from a place to an element of x
      draw(p.seed, unit, words);
      const auto half = [&](int64_t first, auto drop_half) {
        const int64_t from = std::max(first, begin_place);
        const int64_t to = std::min(first + kWords, end_place);
        if (from < to) drop_half(p, from + to_x, to - from, words + (from - first));
      };
      half(unit * kDropoutUnit, drop<T, 0>);
      half(unit * kDropoutUnit + kWords, drop<T, 16>);
    }
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
