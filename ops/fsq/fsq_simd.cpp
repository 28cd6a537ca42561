// CPU rows of fsq.h. Rows are short (D is 6 or so), so kRows of them are taken as one long row,
// with the constants of the dimensions repeated alongside.

#include <algorithm>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/core/simd_math.h"
#include "ops/fsq/fsq_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

constexpr int64_t kRows = 16, kMost = kRows * FsqLevels::kMost;

template <typename A>
struct Repeated {
  explicit Repeated(const FsqLevels& l) {
    for (int64_t i = 0; i < kRows * l.dims; ++i) {
      const int64_t d = i % l.dims;
      shift[i] = A(l.shift[d]);
      half[i] = A(l.half[d]);
      offset[i] = A(l.offset[d]);
      width[i] = A(l.levels[d] / 2);
    }
  }
  A shift[kMost], half[kMost], offset[kMost], width[kMost];
};

/// Nearest whole number, ties to even, for |x| < 2^22: beyond 1.5 * 2^23 floats have no fractions.
inline float round_even(float x) {
  constexpr float kRound = 0x1.8p23f;
  const float shifted = x + kRound;
  return shifted - kRound;
}
inline double round_even(double x) {
  constexpr double kRound = 0x1.8p52;
  const double shifted = x + kRound;
  return shifted - kRound;
}

/// out = tanh(z + shift). No `omp simd`: the tanh of float64 is a call, which Clang would report;
/// the loops of the others it vectorises by itself.
template <typename T>
void squash(const T* z, int64_t count, const Repeated<Acc<T>>& k, Acc<T>* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = simd::tanh(load(z[i]) + k.shift[i]);
}

template <typename T>
void forward(const FsqForward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int dims = p.levels.dims;
  const Repeated<A> k(p.levels);
  for (int64_t r = begin; r < end; r += kRows) {
    const int64_t rows = std::min(kRows, end - r), count = rows * dims;
    const T* z = static_cast<const T*>(p.z) + r * dims;
    T* codes = static_cast<T*>(p.codes) + r * dims;
    A squashed[kMost], digits[kMost] = {};
    squash(z, count, k, squashed);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const A bounded = squashed[i] * k.half[i] - k.offset[i];
      const A rounded = round_even(bounded);
      store(codes[i], rounded / k.width[i]);
      digits[i] = rounded + k.width[i];
    }
    int32_t index[kRows] = {};
    for (int d = 0; d < dims; ++d)
      for (int64_t row = 0; row < kRows; ++row)
        index[row] += static_cast<int32_t>(digits[row * dims + d]) * p.levels.basis[d];
    std::copy_n(index, rows, p.indices + r);
  }
}

template <typename T>
void backward(const FsqBackward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int dims = p.levels.dims;
  const Repeated<A> k(p.levels);
  for (int64_t r = begin; r < end; r += kRows) {
    const int64_t count = std::min(kRows, end - r) * dims;
    const T* z = static_cast<const T*>(p.z) + r * dims;
    const T* grad = static_cast<const T*>(p.grad) + r * dims;
    T* grad_z = static_cast<T*>(p.grad_z) + r * dims;
    A t[kMost];
    squash(z, count, k, t);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
      store(grad_z[i], load(grad[i]) * (A(1) - t[i] * t[i]) * k.half[i] / k.width[i]);
  }
}

template <typename T>
void decode(const FsqDecode& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const FsqLevels& l = p.levels;
  for (int64_t r = begin; r < end; ++r) {
    T* code = static_cast<T*>(p.codes) + r * l.dims;
    int32_t rest = p.indices[r];
    for (int d = 0; d < l.dims; ++d) {
      const int32_t width = l.levels[d] / 2;
      store(code[d], static_cast<A>(rest % l.levels[d] - width) / static_cast<A>(width));
      rest /= l.levels[d];
    }
  }
}

}  // namespace

void fsq_forward(const FsqForward& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype,
              [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(p, begin, end); });
}

void fsq_backward(const FsqBackward& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype,
              [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(p, begin, end); });
}

void fsq_decode_rows(const FsqDecode& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype, [&](auto* t) { decode<std::remove_pointer_t<decltype(t)>>(p, begin, end); });
}

}  // namespace cosmos::ops::COSMOS_ISA
