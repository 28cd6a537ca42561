// CPU loop of linear.h: outputs [begin, end) of every row of x.

#include "ops/core/simd.h"
#include "ops/linear/linear_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

/// Numbers that are multiplied side by side, each lane with a sum of its own: one order of
/// additions in every loop below, whatever the compiler makes of it.
constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

typedef uint16_t HalfLanes __attribute__((vector_size(kLanes * sizeof(uint16_t))));
typedef uint32_t WordLanes __attribute__((vector_size(kLanes * sizeof(uint32_t))));

inline void load_lanes(const float* from, Lanes& to) {
  std::memcpy(&to, from, sizeof(to));
}
inline void load_lanes(const BFloat16* from, Lanes& to) {
  HalfLanes half;
  std::memcpy(&half, from, sizeof(half));
  const WordLanes word = __builtin_convertvector(half, WordLanes) << 16;
  std::memcpy(&to, &word, sizeof(to));
}

/// The sum of all lanes, halves upon halves.
inline float total(const Lanes& lanes) {
  float x[kLanes];
  std::memcpy(x, &lanes, sizeof(x));
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

/// Sums that additions alternate between, since one waits for the last on the same.
constexpr int64_t kSums = 4;

/// Bytes of the weight that are on their way: about what memory delivers within its latency.
constexpr int64_t kAhead = 8192;

/// One row of the weight with X rows of x. The rows of the weight follow each other in memory: one
/// stream, which the CPU reads ahead.
template <typename T, int X>
void dot_products(const FewRowLinear& p, int64_t out, int64_t row) {
  const T* weight = static_cast<const T*>(p.weight) + out * p.in;
  const float* x = p.x + row * p.in;
  Lanes sums[X][kSums] = {};
  constexpr int64_t kStride = kSums * kLanes;
  const int64_t whole = p.in / kStride * kStride;
  for (int64_t i = 0; i < whole; i += kStride) {
    for (std::size_t line = 0; line < kStride * sizeof(T); line += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(weight + i) + kAhead + line);
    for (int64_t s = 0; s < kSums; ++s) {
      Lanes of_weight, of_x;
      load_lanes(weight + i + s * kLanes, of_weight);
      for (int64_t r = 0; r < X; ++r) {
        load_lanes(x + r * p.in + i + s * kLanes, of_x);
        sums[r][s] += of_weight * of_x;
      }
    }
  }
  const float bias = p.bias ? load(static_cast<const T*>(p.bias)[out]) : 0.f;
  for (int64_t r = 0; r < X; ++r) {
    const Lanes all = (sums[r][0] + sums[r][1]) + (sums[r][2] + sums[r][3]);
    float sum = total(all);
    for (int64_t i = whole; i < p.in; ++i) sum += load(weight[i]) * x[r * p.in + i];
    store(static_cast<T*>(p.y)[(row + r) * p.out + out], sum + bias);
  }
}

template <typename T>
void outputs(const FewRowLinear& p, int64_t begin, int64_t end) {
  for (int64_t out = begin; out < end; ++out) {
    int64_t row = 0;
    for (; row + 2 <= p.rows; row += 2) dot_products<T, 2>(p, out, row);
    if (row < p.rows) dot_products<T, 1>(p, out, row);
  }
}

}  // namespace

void few_row_linear(const FewRowLinear& p, int64_t begin, int64_t end) {
  p.dtype == DType::kBFloat16 ? outputs<BFloat16>(p, begin, end) : outputs<float>(p, begin, end);
}

}  // namespace cosmos::ops::COSMOS_ISA
