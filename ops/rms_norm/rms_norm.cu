// CUDA rows of rms_norm.h. A row (one head of one token) belongs to a group of lanes: heads of 128
// in bf16 take 8 lanes with one 16-byte vector of each half, so that a warp works on 4 rows.
// Elements are visited as the pairs that the rotation couples, (i, i + pairs) or (2 i, 2 i + 1);
// what is not rotated follows one by one. Rows are read again from L1 for the second pass.
// Backward: a group works through one chunk of rows alone and keeps the weight gradient of its own
// columns: no atomics. Bytes as in rms_norm.h.

#include "ops/core/cuda.cuh"
#include "ops/rms_norm/rms_norm_kernel.h"

namespace cosmos::ops {
namespace {

using cuda::load;
using cuda::store;

constexpr int kThreads = 256;

template <typename T>
__device__ const T* head_row(const HeadView& view, const HeadShape& shape, int64_t r) {
  const int64_t token = r / shape.heads, head = r % shape.heads;
  return static_cast<const T*>(view.data) + token / shape.length * view.batch_stride +
         token % shape.length * view.token_stride + head * view.head_stride;
}

__device__ inline int64_t table_row(const HeadShape& shape, int64_t r) {
  const int64_t token = r / shape.heads;
  return token / shape.length * shape.table_batch_stride + token % shape.length * shape.pairs;
}

/// Pairs that a row is visited in; without rotation halves do, which vectors like.
__host__ __device__ inline int64_t pairs_of(const HeadShape& shape) {
  return shape.rotation == Rotation::kNone ? shape.dim / 2 : shape.pairs;
}

/// Where the two numbers of pair i are.
template <bool kInterleaved>
__device__ inline int64_t first_of(int64_t i) {
  return kInterleaved ? 2 * i : i;
}
template <bool kInterleaved>
__device__ inline int64_t second_of(int64_t i, int64_t pairs) {
  return kInterleaved ? 2 * i + 1 : i + pairs;
}

/// Pairs i to i + kVec - 1: first numbers to a, second numbers to b.
template <bool kInterleaved, typename T, int kVec>
__device__ inline void load_pairs(const T* row, int64_t pairs, int64_t i, float (&a)[kVec],
                                  float (&b)[kVec]) {
  if constexpr (kInterleaved) {
    float low[kVec], high[kVec];
    load(row + 2 * i, low);
    load(row + 2 * i + kVec, high);
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      a[k] = 2 * k < kVec ? low[2 * k % kVec] : high[2 * k % kVec];
      b[k] = 2 * k + 1 < kVec ? low[(2 * k + 1) % kVec] : high[(2 * k + 1) % kVec];
    }
  } else {
    load(row + i, a);
    load(row + pairs + i, b);
  }
}

template <bool kInterleaved, typename T, int kVec>
__device__ inline void store_pairs(T* row, int64_t pairs, int64_t i, const float (&a)[kVec],
                                   const float (&b)[kVec]) {
  if constexpr (kInterleaved) {
    float part[2][kVec];
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      part[2 * k / kVec][2 * k % kVec] = a[k];
      part[(2 * k + 1) / kVec][(2 * k + 1) % kVec] = b[k];
    }
    store(row + 2 * i, part[0]);
    store(row + 2 * i + kVec, part[1]);
  } else {
    store(row + i, a);
    store(row + pairs + i, b);
  }
}

/// 1 / rms of a row that `lanes` lanes share. Every lane of the warp must call it; lanes without a
/// row pass null.
template <typename T, int kVec>
__device__ inline float inverse_rms(const T* x, int64_t dim, double eps, int lane, int lanes) {
  float square = 0;
  for (int64_t i = lane * kVec; x && i < dim; i += lanes * kVec) {
    float a[kVec];
    load(x + i, a);
    for (int k = 0; k < kVec; ++k) square += a[k] * a[k];
  }
  return rsqrtf(cuda::group_sum(square, lanes) / dim + static_cast<float>(eps));
}

/// `lanes` travels beside the params: kernels take one struct.
template <typename Params>
struct Grouped {
  Params params;
  int lanes;
  int64_t groups;  ///< rows in forward, chunks in backward
};

template <typename T, int kVec, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rms_norm_forward_kernel(Grouped<RmsNormForward> g) {
  const RmsNormForward& p = g.params;
  const int lane = threadIdx.x % g.lanes;
  const int64_t r = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / g.lanes;
  const int64_t dim = p.shape.dim, pairs = pairs_of(p.shape);
  const T* x = r < g.groups ? head_row<T>(p.x, p.shape, r) : nullptr;
  const float scale = p.norm ? inverse_rms<T, kVec>(x, dim, p.eps, lane, g.lanes) : 1.f;
  if (!x) return;
  const float* weight = static_cast<const float*>(p.weight);
  T* out = static_cast<T*>(p.out) + r * dim;
  const int64_t table = table_row(p.shape, r);
  for (int64_t i = lane * kVec; i < pairs; i += g.lanes * kVec) {
    float a[kVec], b[kVec];
    load_pairs<kInterleaved>(x, pairs, i, a, b);
    for (int k = 0; k < kVec; ++k) {
      const float na = a[k] * scale * weight[first_of<kInterleaved>(i + k)];
      const float nb = b[k] * scale * weight[second_of<kInterleaved>(i + k, pairs)];
      const float c = p.cos ? static_cast<const float*>(p.cos)[table + i + k] : 1.f;
      const float s = p.cos ? static_cast<const float*>(p.sin)[table + i + k] : 0.f;
      a[k] = na * c - nb * s;
      b[k] = nb * c + na * s;
    }
    store_pairs<kInterleaved>(out, pairs, i, a, b);
  }
  for (int64_t i = 2 * pairs + lane; i < dim; i += g.lanes)
    out[i] = cuda::from_float<T>(cuda::to_float(x[i]) * scale * weight[i]);
}

/// Gradients of normed pairs: the rotation taken back.
template <bool kInterleaved, typename T, int kVec>
__device__ inline void pair_gradient(const RmsNormBackward& p, const T* grad, int64_t table,
                                     int64_t i, float (&a)[kVec], float (&b)[kVec]) {
  load_pairs<kInterleaved>(grad, pairs_of(p.shape), i, a, b);
  if (!p.cos) return;
  for (int k = 0; k < kVec; ++k) {
    const float c = static_cast<const float*>(p.cos)[table + i + k];
    const float s = static_cast<const float*>(p.sin)[table + i + k];
    const float ga = a[k], gb = b[k];
    a[k] = ga * c + gb * s;
    b[k] = gb * c - ga * s;
  }
}

template <typename T, int kVec, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rms_norm_backward_kernel(Grouped<RmsNormBackward> g) {
  const RmsNormBackward& p = g.params;
  const int lane = threadIdx.x % g.lanes;
  const int64_t chunk = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / g.lanes;
  const int64_t dim = p.shape.dim, pairs = pairs_of(p.shape);
  const int64_t all = p.shape.batch * p.shape.length * p.shape.heads;
  const int64_t rows = p.shape.chunk_tokens * p.shape.heads, first_row = chunk * rows;
  const float* weight = static_cast<const float*>(p.weight);
  float* weight_sum = p.weight_partial && chunk < g.groups
                          ? static_cast<float*>(p.weight_partial) + chunk * dim
                          : nullptr;
  // Each lane owns its columns of the partial row, in memory: they stay in L1.
  if (weight_sum) {
    for (int64_t i = lane * kVec; i < pairs; i += g.lanes * kVec)
      for (int k = 0; k < kVec; ++k)
        weight_sum[first_of<kInterleaved>(i + k)] =
            weight_sum[second_of<kInterleaved>(i + k, pairs)] = 0;
    for (int64_t i = 2 * pairs + lane; i < dim; i += g.lanes) weight_sum[i] = 0;
  }
  for (int64_t n = 0; n < rows;
       ++n) {  // the same count for all lanes: the sums below need them all
    const int64_t r = first_row + n;
    const bool mine = chunk < g.groups && r < all;
    const T* x = mine ? head_row<T>(p.x, p.shape, r) : nullptr;
    const T* grad = mine ? head_row<T>(p.grad, p.shape, r) : nullptr;
    const float scale = inverse_rms<T, kVec>(x, dim, p.eps, lane, g.lanes);
    const int64_t table = table_row(p.shape, mine ? r : 0);
    float dot = 0;
    for (int64_t i = lane * kVec; mine && i < pairs; i += g.lanes * kVec) {
      float a[kVec], b[kVec], xa[kVec], xb[kVec];
      pair_gradient<kInterleaved>(p, grad, table, i, a, b);
      load_pairs<kInterleaved>(x, pairs, i, xa, xb);
      for (int k = 0; k < kVec; ++k) {
        const int64_t first = first_of<kInterleaved>(i + k);
        const int64_t second = second_of<kInterleaved>(i + k, pairs);
        dot += a[k] * weight[first] * xa[k] + b[k] * weight[second] * xb[k];
        if (weight_sum) {
          weight_sum[first] += a[k] * xa[k] * scale;
          weight_sum[second] += b[k] * xb[k] * scale;
        }
      }
    }
    for (int64_t i = 2 * pairs + lane; mine && i < dim; i += g.lanes) {
      const float ga = cuda::to_float(grad[i]), xa = cuda::to_float(x[i]);
      dot += ga * weight[i] * xa;
      if (weight_sum) weight_sum[i] += ga * xa * scale;
    }
    const float pull = scale * scale * scale * cuda::group_sum(dot, g.lanes) / dim;
    T* out = static_cast<T*>(p.grad_x) + r * dim;
    for (int64_t i = lane * kVec; mine && i < pairs; i += g.lanes * kVec) {
      float a[kVec], b[kVec], xa[kVec], xb[kVec];
      pair_gradient<kInterleaved>(p, grad, table, i, a, b);
      load_pairs<kInterleaved>(x, pairs, i, xa, xb);
      for (int k = 0; k < kVec; ++k) {
        a[k] = scale * a[k] * weight[first_of<kInterleaved>(i + k)] - xa[k] * pull;
        b[k] = scale * b[k] * weight[second_of<kInterleaved>(i + k, pairs)] - xb[k] * pull;
      }
      store_pairs<kInterleaved>(out, pairs, i, a, b);
    }
    for (int64_t i = 2 * pairs + lane; mine && i < dim; i += g.lanes)
      out[i] = cuda::from_float<T>(scale * cuda::to_float(grad[i]) * weight[i] -
                                   cuda::to_float(x[i]) * pull);
  }
}

/// 16 bytes where every row and both halves of its pairs start on 16 bytes, else element by
/// element; lanes: the smallest power of two that covers half a row at once, at most a warp.
bool aligned(const HeadView& view, DType dtype) {
  const int64_t wide = dtype == DType::kFloat32 ? 4 : 8;
  return cuda::aligned(view.data) && view.batch_stride % wide == 0 &&
         view.token_stride % wide == 0 && view.head_stride % wide == 0;
}

int lanes_for(int64_t half, int vec) {
  int lanes = 1;
  while (lanes < cuda::kWarp && lanes * vec < half) lanes *= 2;
  return lanes;
}

template <typename Fn>
void visit_layout(const HeadShape& shape, bool rows_aligned, Fn fn) {
  cuda::visit_dtype(shape.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kWide = 16 / sizeof(T);
    const bool wide = rows_aligned && shape.dim % kWide == 0 && pairs_of(shape) % kWide == 0;
    const auto with_vector = [&](auto vec) {
      if (shape.rotation == Rotation::kInterleaved)
        fn(type, vec, std::true_type{});
      else
        fn(type, vec, std::false_type{});
    };
    if (wide)
      with_vector(std::integral_constant<int, kWide>{});
    else
      with_vector(std::integral_constant<int, 1>{});
  });
}

}  // namespace

void rms_norm_forward_cuda(const RmsNormForward& p, void* stream) {
  visit_layout(p.shape, aligned(p.x, p.shape.dtype), [&](auto* type, auto vec, auto interleaved) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int lanes = lanes_for(p.shape.dim / 2, vec.value);
    const int64_t rows = p.shape.batch * p.shape.length * p.shape.heads;
    cuda::launch(rms_norm_forward_kernel<T, decltype(vec)::value, decltype(interleaved)::value>,
                 cuda::blocks_for(rows * lanes, kThreads), kThreads,
                 Grouped<RmsNormForward>{p, lanes, rows}, stream);
  });
}

void rms_norm_backward_cuda(const RmsNormBackward& p, void* stream) {
  const bool fits = aligned(p.x, p.shape.dtype) && aligned(p.grad, p.shape.dtype);
  visit_layout(p.shape, fits, [&](auto* type, auto vec, auto interleaved) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int lanes = lanes_for(p.shape.dim / 2, vec.value);
    const int64_t tokens = p.shape.batch * p.shape.length;
    const int64_t chunks = (tokens + p.shape.chunk_tokens - 1) / p.shape.chunk_tokens;
    cuda::launch(rms_norm_backward_kernel<T, decltype(vec)::value, decltype(interleaved)::value>,
                 cuda::blocks_for(chunks * lanes, kThreads), kThreads,
                 Grouped<RmsNormBackward>{p, lanes, chunks}, stream);
  });
}

}  // namespace cosmos::ops
