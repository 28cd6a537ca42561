// CUDA rows of adaln.h.
//
// Forward: one block a row; a thread holds kCount vectors of kVec elements in registers from load
// to store, so that x (and y) are read once. Backward: one block a chunk of rows, the same layout;
// each thread keeps the sums of its own columns over the chunk and writes them once: no atomics,
// the same bits on every run. Modulation rows stay in L1/L2. Bytes as in adaln.h.

#include "ops/core/cuda.cuh"
#include "ops/norm/adaln_kernel.h"

namespace cosmos::ops {
namespace {

using cuda::load;
using cuda::store;

constexpr int kMaxThreads = 512;

template <typename T>
__device__ const T* row(const void* data, int64_t index, int64_t stride) {
  return static_cast<const T*>(data) + index * stride;
}
template <typename T>
__device__ T* row(void* data, int64_t index, int64_t stride) {
  return static_cast<T*>(data) + index * stride;
}

/// Calls fn(j, i) for each of this thread's vectors: number j, first element i.
template <int kVec, int kCount, typename Fn>
__device__ inline void for_vectors(int64_t dim, Fn fn) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const int64_t i = (static_cast<int64_t>(j) * blockDim.x + threadIdx.x) * kVec;
    if (i < dim) fn(j, i);
  }
}

template <typename T, int kVec, int kCount>
__global__ void __launch_bounds__(kMaxThreads) adaln_forward_kernel(AdaLnForward p) {
  __shared__ float scratch[cuda::kWarp];
  const int64_t dim = p.shape.dim, r = blockIdx.x, s = r / p.shape.segment;
  float x[kCount][kVec];
  float sum = 0;
  for_vectors<kVec, kCount>(dim, [&](int j, int64_t i) {
    load(row<T>(p.x, r, dim) + i, x[j]);
    if (p.y) {
      float y[kVec], gate[kVec];
      load(row<T>(p.y, r, dim) + i, y);
      load(row<T>(p.gate.data, s, p.gate.stride) + i, gate);
      // Rounded as stored: backward normalises what it finds in memory.
      for (int k = 0; k < kVec; ++k)
        x[j][k] = cuda::to_float(cuda::from_float<T>(x[j][k] + gate[k] * y[k]));
      store(row<T>(p.sum, r, dim) + i, x[j]);
    }
    for (int k = 0; k < kVec; ++k) sum += x[j][k];
  });
  const float mean = cuda::block_sum(sum, scratch) / dim;
  float square = 0;
  for_vectors<kVec, kCount>(dim, [&](int j, int64_t) {
    for (int k = 0; k < kVec; ++k) square += (x[j][k] - mean) * (x[j][k] - mean);
  });
  const float variance = cuda::block_sum(square, scratch) / dim;
  const float rstd = 1.f / sqrtf(variance + static_cast<float>(p.eps));
  for_vectors<kVec, kCount>(dim, [&](int j, int64_t i) {
    float scale[kVec], shift[kVec];
    load(row<T>(p.scale.data, s, p.scale.stride) + i, scale);
    load(row<T>(p.shift.data, s, p.shift.stride) + i, shift);
    for (int k = 0; k < kVec; ++k) x[j][k] = (x[j][k] - mean) * rstd * (1 + scale[k]) + shift[k];
    store(row<T>(p.normed, r, dim) + i, x[j]);
  });
  if (threadIdx.x == 0) {
    static_cast<float*>(p.mean)[r] = mean;
    static_cast<float*>(p.rstd)[r] = rstd;
  }
}

/// The rows of the block's chunk.
struct Rows {
  int64_t segment, begin, end;
};
__device__ inline Rows rows_of(const RowShape& shape) {
  const int64_t segment = blockIdx.x / shape.chunks, first = segment * shape.segment;
  const int64_t begin = first + blockIdx.x % shape.chunks * shape.chunk_rows;
  const int64_t end = begin + shape.chunk_rows, last = first + shape.segment;
  return {segment, begin, end < last ? end : last};
}

template <int kVec, int kCount>
__device__ inline void store_partial(void* partial, int64_t dim, const float (&sum)[kCount][kVec]) {
  if (!partial) return;
  for_vectors<kVec, kCount>(
      dim, [&](int j, int64_t i) { store(row<float>(partial, blockIdx.x, dim) + i, sum[j]); });
}

template <typename T, int kVec, int kCount, bool kGated>
__global__ void __launch_bounds__(kMaxThreads) adaln_backward_kernel(AdaLnBackward p) {
  __shared__ float scratch[cuda::kWarp];
  const int64_t dim = p.shape.dim;
  const Rows rows = rows_of(p.shape);
  const T* scale_row = row<T>(p.scale.data, rows.segment, p.scale.stride);
  const T* gate_row = row<T>(p.gate.data, rows.segment, p.gate.stride);
  float scale_sum[kCount][kVec] = {}, shift_sum[kCount][kVec] = {};
  float gate_sum[kGated ? kCount : 1][kVec] = {};
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const float mean = static_cast<const float*>(p.mean)[r];
    const float rstd = static_cast<const float*>(p.rstd)[r];
    float normed[kCount][kVec], h[kCount][kVec];  // h = grad * (1 + scale)
    float sum = 0, dot = 0;
    for_vectors<kVec, kCount>(dim, [&](int j, int64_t i) {
      float scale[kVec];
      load(row<T>(p.x, r, dim) + i, normed[j]);
      load(row<T>(p.grad_normed, r, dim) + i, h[j]);
      load(scale_row + i, scale);
      for (int k = 0; k < kVec; ++k) {
        normed[j][k] = (normed[j][k] - mean) * rstd;
        scale_sum[j][k] += h[j][k] * normed[j][k];
        shift_sum[j][k] += h[j][k];
        h[j][k] *= 1 + scale[k];
        sum += h[j][k];
        dot += h[j][k] * normed[j][k];
      }
    });
    const float mean_h = cuda::block_sum(sum, scratch) / dim;
    const float mean_dot = cuda::block_sum(dot, scratch) / dim;
    for_vectors<kVec, kCount>(dim, [&](int j, int64_t i) {
      for (int k = 0; k < kVec; ++k) h[j][k] = rstd * (h[j][k] - mean_h - normed[j][k] * mean_dot);
      if (p.grad_sum) {
        float from_sum[kVec];
        load(row<T>(p.grad_sum, r, dim) + i, from_sum);
        for (int k = 0; k < kVec; ++k) h[j][k] += from_sum[k];
      }
      store(row<T>(p.grad_x, r, dim) + i, h[j]);
      if constexpr (kGated) {
        float y[kVec], gate[kVec];
        load(row<T>(p.y, r, dim) + i, y);
        load(gate_row + i, gate);
        for (int k = 0; k < kVec; ++k) {
          gate_sum[j][k] += h[j][k] * y[k];
          gate[k] *= h[j][k];
        }
        store(row<T>(p.grad_y, r, dim) + i, gate);
      }
    });
  }
  store_partial(p.scale_partial, dim, scale_sum);
  store_partial(p.shift_partial, dim, shift_sum);
  if constexpr (kGated) store_partial(p.gate_partial, dim, gate_sum);
}

template <typename T, int kVec, int kCount>
__global__ void __launch_bounds__(kMaxThreads) gated_forward_kernel(GatedResidualForward p) {
  const int64_t dim = p.shape.dim, r = blockIdx.x, s = r / p.shape.segment;
  for_vectors<kVec, kCount>(dim, [&](int, int64_t i) {
    float x[kVec], y[kVec], gate[kVec];
    load(row<T>(p.x, r, dim) + i, x);
    load(row<T>(p.y, r, dim) + i, y);
    load(row<T>(p.gate.data, s, p.gate.stride) + i, gate);
    for (int k = 0; k < kVec; ++k) x[k] += gate[k] * y[k];
    store(row<T>(p.out, r, dim) + i, x);
  });
}

template <typename T, int kVec, int kCount>
__global__ void __launch_bounds__(kMaxThreads) gated_backward_kernel(GatedResidualBackward p) {
  const int64_t dim = p.shape.dim;
  const Rows rows = rows_of(p.shape);
  float gate_sum[kCount][kVec] = {};
  for (int64_t r = rows.begin; r < rows.end; ++r)
    for_vectors<kVec, kCount>(dim, [&](int j, int64_t i) {
      float grad[kVec], y[kVec], gate[kVec];
      load(row<T>(p.grad, r, dim) + i, grad);
      load(row<T>(p.y, r, dim) + i, y);
      load(row<T>(p.gate.data, rows.segment, p.gate.stride) + i, gate);
      for (int k = 0; k < kVec; ++k) {
        gate_sum[j][k] += grad[k] * y[k];
        gate[k] *= grad[k];
      }
      store(row<T>(p.grad_y, r, dim) + i, gate);
    });
  store_partial(p.gate_partial, dim, gate_sum);
}

/// Vectors of 16 bytes where every row starts on 16 bytes, else element by element. Calls
/// fn(type, vector width, vectors a thread, threads) with the first three as constants.
template <typename Fn>
void visit_layout(const RowShape& shape, bool rows_aligned, Fn fn) {
  cuda::visit_dtype(shape.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kWide = 16 / sizeof(T);
    const bool wide = rows_aligned && shape.dim % kWide == 0;
    const int64_t vectors = wide ? shape.dim / kWide : shape.dim;
    const auto go = [&](auto vec, auto count) {
      const int64_t each = (vectors + count.value - 1) / count.value;
      fn(type, vec, count, static_cast<int>((each + cuda::kWarp - 1) / cuda::kWarp * cuda::kWarp));
    };
    using std::integral_constant;
    if (wide && vectors <= kMaxThreads)
      go(integral_constant<int, kWide>{}, integral_constant<int, 1>{});
    else if (wide && vectors <= 2 * kMaxThreads)
      go(integral_constant<int, kWide>{}, integral_constant<int, 2>{});
    else if (wide && vectors <= 4 * kMaxThreads)
      go(integral_constant<int, kWide>{}, integral_constant<int, 4>{});
    else if (!wide && vectors <= 16 * kMaxThreads)
      go(integral_constant<int, 1>{}, integral_constant<int, 16>{});
    else
      throw std::runtime_error("adaln on CUDA: rows of " + std::to_string(shape.dim) +
                               " elements are longer than the kernels cover (8192, or 16384 in "
                               "16-bit types; COSMOS_OPS=reference has no limit)");
  });
}

bool aligned(const Modulation& m, DType dtype) {
  return cuda::aligned(m.data) && m.stride % (dtype == DType::kFloat32 ? 4 : 8) == 0;
}

}  // namespace

void adaln_forward_cuda(const AdaLnForward& p, void* stream) {
  const bool fits = cuda::aligned(p.x) && cuda::aligned(p.y) && aligned(p.gate, p.shape.dtype) &&
                    aligned(p.scale, p.shape.dtype) && aligned(p.shift, p.shape.dtype);
  visit_layout(p.shape, fits, [&](auto* type, auto vec, auto count, int threads) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(adaln_forward_kernel<T, decltype(vec)::value, decltype(count)::value>,
                 cuda::blocks_for(p.shape.rows, 1), threads, p, stream);
  });
}

void adaln_backward_cuda(const AdaLnBackward& p, void* stream) {
  const bool fits = cuda::aligned(p.x) && cuda::aligned(p.y) && cuda::aligned(p.grad_normed) &&
                    cuda::aligned(p.grad_sum) && aligned(p.gate, p.shape.dtype) &&
                    aligned(p.scale, p.shape.dtype);
  const int64_t chunks = p.shape.rows / p.shape.segment * p.shape.chunks;
  visit_layout(p.shape, fits, [&](auto* type, auto vec, auto count, int threads) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kVec = decltype(vec)::value, kCount = decltype(count)::value;
    cuda::launch(p.y ? adaln_backward_kernel<T, kVec, kCount, true>
                     : adaln_backward_kernel<T, kVec, kCount, false>,
                 cuda::blocks_for(chunks, 1), threads, p, stream);
  });
}

void gated_residual_forward_cuda(const GatedResidualForward& p, void* stream) {
  const bool fits = cuda::aligned(p.x) && cuda::aligned(p.y) && aligned(p.gate, p.shape.dtype);
  visit_layout(p.shape, fits, [&](auto* type, auto vec, auto count, int threads) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(gated_forward_kernel<T, decltype(vec)::value, decltype(count)::value>,
                 cuda::blocks_for(p.shape.rows, 1), threads, p, stream);
  });
}

void gated_residual_backward_cuda(const GatedResidualBackward& p, void* stream) {
  const bool fits = cuda::aligned(p.grad) && cuda::aligned(p.y) && aligned(p.gate, p.shape.dtype);
  const int64_t chunks = p.shape.rows / p.shape.segment * p.shape.chunks;
  visit_layout(p.shape, fits, [&](auto* type, auto vec, auto count, int threads) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(gated_backward_kernel<T, decltype(vec)::value, decltype(count)::value>,
                 cuda::blocks_for(chunks, 1), threads, p, stream);
  });
}

}  // namespace cosmos::ops
