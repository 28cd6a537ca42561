// CUDA rows of linear_cross_entropy_kernel.h: a block takes one row. Each thread walks its share of
// the columns with a maximum and a sum of its own, which the block then brings to one maximum.
// Bytes: one read of the logits to reduce; another read, from L2 for the most part, and one write
// for the gradient. Sums in a fixed order: the same bits on every run.

#include <algorithm>

#include "ops/core/cuda.cuh"
#include "ops/linear_cross_entropy/linear_cross_entropy_kernel.h"

namespace cosmos::ops {
namespace {

using cuda::load;
using cuda::store;
using State = ClassState<float>;

constexpr int kThreads = 512;

/// Largest over the block, NaN aside; every thread gets it. `scratch`: kWarp floats of shared
/// memory.
__device__ inline float block_max(float x, float* scratch) {
  const int lane = threadIdx.x % cuda::kWarp, warp = threadIdx.x / cuda::kWarp;
  const int warps = blockDim.x / cuda::kWarp;
  for (int step = cuda::kWarp / 2; step > 0; step /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  __syncthreads();  // an earlier result may still be read
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = scratch[lane < warps ? lane : 0];
  for (int step = cuda::kWarp / 2; step > 0; step /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/// From which exponents are counted: a row of -infinity alone must not become NaN.
__device__ inline float origin(float max) {
  return max == -INFINITY ? 0.f : max;
}

/// Brings sum and weighted to a larger maximum.
__device__ inline void raise_max(State& state, float max) {
  if (state.sum > 0 && max > state.max) {
    const float lower = state.max - max, shrink = expf(lower);
    state.weighted = (state.weighted + lower * state.sum) * shrink;
    state.sum *= shrink;
  }
  state.max = max;
}

/// Scaled logits of one row, kVec at a time.
template <typename T, int kVec>
struct Row {
  const T* logits;
  const T* bias;
  float scale;

  template <int kCount>
  __device__ void get(int64_t i, float (&x)[kCount]) const {
    load(logits + i, x);
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      x[k] = (bias ? x[k] + cuda::to_float(bias[i + k]) : x[k]) * scale;
  }

  /// Calls fn(i, x) for this thread's share of `columns`, x being kVec logits, or one at the end.
  template <typename Fn>
  __device__ void visit(int64_t columns, Fn fn) const {
    const int64_t whole = columns - columns % kVec;
    for (int64_t i = threadIdx.x * kVec; i < whole; i += blockDim.x * kVec) {
      float x[kVec];
      get(i, x);
      fn(i, x);
    }
    for (int64_t i = whole + threadIdx.x; i < columns; i += blockDim.x) {
      float x[1];
      get(i, x);
      fn(i, x);
    }
  }
};

template <int kCount>
__device__ inline void add(State& state, const float (&x)[kCount], bool entropy) {
  float max = state.max;
#pragma unroll
  for (int k = 0; k < kCount; ++k) max = fmaxf(max, x[k]);
  raise_max(state, max);
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const float lower = x[k] - origin(max), e = expf(lower);
    state.sum += e;
    state.total += x[k];
    if (entropy && e != 0) state.weighted += lower * e;
  }
}

/// The state with this row's columns added; every thread gets it.
template <typename T, int kVec>
__device__ inline State reduce_row(const CrossEntropyRows& p, const Row<T, kVec>& row,
                                   int64_t target, State before, float* scratch) {
  State own{-INFINITY, 0, 0, 0, 0};
  row.visit(p.columns, [&](int64_t, const auto& x) { add(own, x, p.entropy); });
  const float max = fmaxf(before.max, block_max(own.max, scratch));
  raise_max(own, max);
  raise_max(before, max);
  before.sum += cuda::block_sum(own.sum, scratch);
  before.total += cuda::block_sum(own.total, scratch);
  if (p.entropy) before.weighted += cuda::block_sum(own.weighted, scratch);
  if (target >= 0 && target < p.columns) {
    float x[1];
    row.get(target, x);
    before.target = x[0];
  }
  return before;
}

/// d loss / d x = (1 + 2 z lse) softmax(x) - ε / V - (1 - ε) [class is the target].
template <typename T, int kVec>
__device__ inline void write_gradient(const CrossEntropyRows& p, const Row<T, kVec>& row,
                                      int64_t target, const State& state, float seed, T* out) {
  const float lse = state.max + logf(state.sum), each = seed * row.scale;
  const float peak = each * (1 + 2 * static_cast<float>(p.z_loss) * lse);
  const float even = each * static_cast<float>(p.label_smoothing) / static_cast<float>(p.classes);
  const float picked = each * static_cast<float>(1 - p.label_smoothing);
  row.visit(p.columns, [&](int64_t i, auto& x) {
    constexpr int kCount = sizeof(x) / sizeof(float);
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      x[k] = peak * expf(x[k] - lse) - even - (i + k == target ? picked : 0.f);
    store(out + i, x);
  });
}

template <typename T, int kVec>
__device__ inline void write_shares(const CrossEntropyRows& p, const Row<T, kVec>& row,
                                    const State& state, float seed, T* out) {
  const float lse = state.max + logf(state.sum);
  row.visit(p.columns, [&](int64_t i, auto& x) {
    for (float& value : x) value = seed * expf(value - lse);
    store(out + i, x);
  });
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) cross_entropy_rows_kernel(CrossEntropyRows p) {
  __shared__ float scratch[cuda::kWarp];
  const int64_t r = blockIdx.x, target = p.target[r] - p.first_class;
  T* logits = static_cast<T*>(p.logits) + r * p.pitch;
  const Row<T, kVec> row{logits, static_cast<const T*>(p.bias), static_cast<float>(p.scale)};
  State* kept = static_cast<State*>(p.state) + r;
  State state = p.reduce && !p.resume ? State{-INFINITY, 0, NAN, 0, 0} : *kept;
  if (p.reduce) {
    state = reduce_row(p, row, target, state, scratch);
    __syncthreads();  // all have read the state and the target's logit
    if (threadIdx.x == 0) *kept = state;
  }
  if (!p.seed) return;
  // All masked by -infinity so far: their shares are 0, not 0 / 0.
  if (p.target[r] == p.ignore_index || (p.shares && state.sum == 0)) {
    row.visit(p.columns, [&](int64_t i, auto& x) {
      for (float& value : x) value = 0;
      store(logits + i, x);
    });
    return;
  }
  const float seed = static_cast<const float*>(p.seed)[r * p.seed_stride];
  if (p.shares)
    write_shares(p, row, state, seed, logits);
  else
    write_gradient(p, row, target, state, seed, logits);
}

}  // namespace

void cross_entropy_rows_cuda(const CrossEntropyRows& p, void* stream) {
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kWide = 16 / sizeof(T);
    const bool aligned = cuda::aligned(p.logits) && p.pitch % kWide == 0;
    const int64_t vectors = (p.columns + kWide - 1) / kWide;
    const int64_t warps = (std::min<int64_t>(vectors, kThreads) + cuda::kWarp - 1) / cuda::kWarp;
    cuda::launch(aligned ? cross_entropy_rows_kernel<T, kWide> : cross_entropy_rows_kernel<T, 1>,
                 cuda::blocks_for(p.rows, 1), static_cast<int>(warps) * cuda::kWarp, p, stream);
  });
}

}  // namespace cosmos::ops
