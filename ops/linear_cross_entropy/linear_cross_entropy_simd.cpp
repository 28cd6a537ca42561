// CPU rows of linear_cross_entropy_kernel.h. A row is read in blocks that are turned into float
// once and then lie in L1 for the maximum and the sums.

#include <algorithm>
#include <limits>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/core/simd_math.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

constexpr int64_t kBlock = 512;

/// Scaled logit i of a row. Whether there is a bias is known when compiled: loops stay straight.
template <typename T, bool kBias>
struct Row {
  using A = Acc<T>;
  const T* logits;
  const T* bias;
  A scale;

  A operator()(int64_t i) const {
    if constexpr (kBias) return (load(logits[i]) + load(bias[i])) * scale;
    return load(logits[i]) * scale;
  }
};

/// The largest of kBlock values, NaN aside, as 64 maxima side by side.
template <typename A>
A largest(const A* values) {
  constexpr int64_t kSide = 64;
  A best[kSide];
  std::copy_n(values, kSide, best);
  for (int64_t i = kSide; i < kBlock; i += kSide) {
#pragma omp simd
    for (int64_t j = 0; j < kSide; ++j) best[j] = values[i + j] > best[j] ? values[i + j] : best[j];
  }
  return *std::max_element(best, best + kSide);
}

/// Adds kBlock values to a state; -infinity adds nothing.
template <typename A>
void add_block(const A* values, bool entropy, ClassState<A>& state) {
  const A top = std::max(state.max, largest(values));
  if (state.sum > 0 && top > state.max) {
    const A lower = state.max - top, shrink = std::exp(lower);
    state.weighted = (state.weighted + lower * state.sum) * shrink;
    state.sum *= shrink;
  }
  state.max = top;
  // Classes masked by -infinity alone: exp(-infinity - 0) is 0 where -infinity less itself is NaN.
  const A origin = top == -std::numeric_limits<A>::infinity() ? A(0) : top;
  state.sum += sum_of<A>(kBlock, [=](int64_t i) { return simd::exp(values[i] - origin); });
  if (!entropy) return;
  state.weighted += sum_of<A>(kBlock, [=](int64_t i) {
    const A lower = values[i] - origin, e = simd::exp(lower);
    return e == 0 ? A(0) : lower * e;
  });
}

template <typename RowT, typename A>
void reduce_row(const CrossEntropyRows& p, const RowT& row, int64_t target, ClassState<A>& state) {
  if (!p.resume)
    state = {-std::numeric_limits<A>::infinity(), 0, std::numeric_limits<A>::quiet_NaN(), 0, 0};
  if (target >= 0 && target < p.columns) state.target = row(target);
  A values[kBlock];
  for (int64_t first = 0; first < p.columns; first += kBlock) {
    const int64_t count = std::min(kBlock, p.columns - first);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] = row(first + i);
    state.total += sum_of<A>(count, [&values](int64_t i) { return values[i]; });
    std::fill(values + count, values + kBlock, -std::numeric_limits<A>::infinity());
    add_block(values, p.entropy, state);
  }
}

/// d loss / d x = (1 + 2 z lse) softmax(x) - ε / V - (1 - ε) [class is the target].
template <typename T, bool kBias>
void write_gradient(const CrossEntropyRows& p, const Row<T, kBias>& row, int64_t target,
                    const ClassState<Acc<T>>& state, Acc<T> seed, T* out) {
  using A = Acc<T>;
  const A lse = state.max + std::log(state.sum), each = seed * row.scale;
  const A peak = each * (1 + 2 * A(p.z_loss) * lse);
  const A even = each * A(p.label_smoothing) / A(p.classes);
#pragma omp simd
  for (int64_t i = 0; i < p.columns; ++i) store(out[i], peak * simd::exp(row(i) - lse) - even);
  if (target >= 0 && target < p.columns)
    store(out[target],
          peak * std::exp(state.target - lse) - even - each * A(1 - p.label_smoothing));
}

template <typename T, bool kBias>
void write_shares(const CrossEntropyRows& p, const Row<T, kBias>& row,
                  const ClassState<Acc<T>>& state, Acc<T> seed, T* out) {
  const Acc<T> lse = state.max + std::log(state.sum);
#pragma omp simd
  for (int64_t i = 0; i < p.columns; ++i) store(out[i], seed * simd::exp(row(i) - lse));
}

template <typename T, bool kBias>
void visit_rows(const CrossEntropyRows& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t r = begin; r < end; ++r) {
    T* logits = static_cast<T*>(p.logits) + r * p.pitch;
    const Row<T, kBias> row{logits, static_cast<const T*>(p.bias), A(p.scale)};
    ClassState<A>& state = static_cast<ClassState<A>*>(p.state)[r];
    const int64_t target = p.target[r] - p.first_class;
    if (p.reduce) reduce_row(p, row, target, state);
    if (!p.seed) continue;
    const A seed = static_cast<const A*>(p.seed)[r * p.seed_stride];
    // All masked by -infinity so far: their shares are 0, not 0 / 0.
    if (p.target[r] == p.ignore_index || (p.shares && state.sum == 0))
      std::memset(static_cast<void*>(logits), 0, sizeof(T) * static_cast<std::size_t>(p.columns));
    else if (p.shares)
      write_shares(p, row, state, seed, logits);
    else
      write_gradient(p, row, target, state, seed, logits);
  }
}

}  // namespace

void cross_entropy_rows(const CrossEntropyRows& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    p.bias ? visit_rows<T, true>(p, begin, end) : visit_rows<T, false>(p, begin, end);
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
