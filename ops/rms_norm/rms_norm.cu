// CUDA rows of rms_norm.h. A row (one head of one token) belongs to a group of lanes: heads of 128
// in bf16 take 8 lanes with one 16-byte vector of each half, so that a warp works on 4 rows.
// Elements are visited as pairs (i, i + dim / 2), which is what the rotation couples. Rows are read
// again from L1 for the second pass. Backward: a group works through one chunk of rows alone and
// keeps the weight gradient of its own columns: no atomics. Bytes as in rms_norm.h.

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
  return r / shape.heads % shape.length * (shape.dim / 2);
}

/// 1 / rms of a row that `lanes` lanes share. Every lane of the warp must call it; lanes without a
/// row pass null.
template <typename T, int kVec>
__device__ inline float inverse_rms(const T* x, int64_t dim, double eps, int lane, int lanes) {
  const int64_t half = dim / 2;
  float square = 0;
  if (x) {
    for (int64_t i = lane * kVec; i < half; i += lanes * kVec) {
      float a[kVec], b[kVec];
      load(x + i, a);
      load(x + half + i, b);
      for (int k = 0; k < kVec; ++k) square += a[k] * a[k] + b[k] * b[k];
    }
    if (dim % 2 && lane == 0) {
      const float last = cuda::to_float(x[dim - 1]);
      square += last * last;
    }
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

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) rms_norm_forward_kernel(Grouped<RmsNormForward> g) {
  const RmsNormForward& p = g.params;
  const int lane = threadIdx.x % g.lanes;
  const int64_t r = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / g.lanes;
  const int64_t dim = p.shape.dim, half = dim / 2;
  const T* x = r < g.groups ? head_row<T>(p.x, p.shape, r) : nullptr;
  const float scale = inverse_rms<T, kVec>(x, dim, p.eps, lane, g.lanes);
  if (!x) return;
  const float* weight = static_cast<const float*>(p.weight);
  T* out = static_cast<T*>(p.out) + r * dim;
  const int64_t table = table_row(p.shape, r);
  for (int64_t i = lane * kVec; i < half; i += g.lanes * kVec) {
    float a[kVec], b[kVec];
    load(x + i, a);
    load(x + half + i, b);
    for (int k = 0; k < kVec; ++k) {
      const float na = a[k] * scale * weight[i + k], nb = b[k] * scale * weight[half + i + k];
      const float c = p.cos ? static_cast<const float*>(p.cos)[table + i + k] : 1.f;
      const float s = p.cos ? static_cast<const float*>(p.sin)[table + i + k] : 0.f;
      a[k] = na * c - nb * s;
      b[k] = nb * c + na * s;
    }
    store(out + i, a);
    store(out + half + i, b);
  }
  if (dim % 2 && lane == 0)
    out[dim - 1] = cuda::from_float<T>(cuda::to_float(x[dim - 1]) * scale * weight[dim - 1]);
}

/// Gradients of the normed pair (i, i + half): the rotation taken back.
template <typename T, int kVec>
__device__ inline void pair_gradient(const RmsNormBackward& p, const T* grad, int64_t table,
                                     int64_t i, float (&a)[kVec], float (&b)[kVec]) {
  load(grad + i, a);
  load(grad + p.shape.dim / 2 + i, b);
  if (!p.cos) return;
  for (int k = 0; k < kVec; ++k) {
    const float c = static_cast<const float*>(p.cos)[table + i + k];
    const float s = static_cast<const float*>(p.sin)[table + i + k];
    const float ga = a[k], gb = b[k];
    a[k] = ga * c + gb * s;
    b[k] = gb * c - ga * s;
  }
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) rms_norm_backward_kernel(Grouped<RmsNormBackward> g) {
  const RmsNormBackward& p = g.params;
  const int lane = threadIdx.x % g.lanes;
  const int64_t chunk = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / g.lanes;
  const int64_t dim = p.shape.dim, half = dim / 2;
  const int64_t all = p.shape.batch * p.shape.length * p.shape.heads;
  const int64_t rows = p.shape.chunk_tokens * p.shape.heads, first = chunk * rows;
  const float* weight = static_cast<const float*>(p.weight);
  float* weight_sum = p.weight_partial && chunk < g.groups
                          ? static_cast<float*>(p.weight_partial) + chunk * dim
                          : nullptr;
  // Each lane owns its columns of the partial row, in memory: they stay in L1.
  if (weight_sum) {
    for (int64_t i = lane * kVec; i < half; i += g.lanes * kVec)
      for (int k = 0; k < kVec; ++k) weight_sum[i + k] = weight_sum[half + i + k] = 0;
    if (dim % 2 && lane == 0) weight_sum[dim - 1] = 0;
  }
  for (int64_t n = 0; n < rows;
       ++n) {  // the same count for all lanes: the sums below need them all
    const int64_t r = first + n;
    const bool mine = chunk < g.groups && r < all;
    const T* x = mine ? head_row<T>(p.x, p.shape, r) : nullptr;
    const T* grad = mine ? head_row<T>(p.grad, p.shape, r) : nullptr;
    const float scale = inverse_rms<T, kVec>(x, dim, p.eps, lane, g.lanes);
    const int64_t table = table_row(p.shape, mine ? r : 0);
    const bool tail = mine && dim % 2 && lane == 0;
    float dot = 0;
    for (int64_t i = lane * kVec; mine && i < half; i += g.lanes * kVec) {
      float a[kVec], b[kVec], xa[kVec], xb[kVec];
      pair_gradient<T>(p, grad, table, i, a, b);
      load(x + i, xa);
      load(x + half + i, xb);
      for (int k = 0; k < kVec; ++k) {
        dot += a[k] * weight[i + k] * xa[k] + b[k] * weight[half + i + k] * xb[k];
        if (weight_sum) {
          weight_sum[i + k] += a[k] * xa[k] * scale;
          weight_sum[half + i + k] += b[k] * xb[k] * scale;
        }
      }
    }
    if (tail) {
      const float ga = cuda::to_float(grad[dim - 1]), xa = cuda::to_float(x[dim - 1]);
      dot += ga * weight[dim - 1] * xa;
      if (weight_sum) weight_sum[dim - 1] += ga * xa * scale;
    }
    const float pull = scale * scale * scale * cuda::group_sum(dot, g.lanes) / dim;
    T* out = static_cast<T*>(p.grad_x) + r * dim;
    for (int64_t i = lane * kVec; mine && i < half; i += g.lanes * kVec) {
      float a[kVec], b[kVec], xa[kVec], xb[kVec];
      pair_gradient<T>(p, grad, table, i, a, b);
      load(x + i, xa);
      load(x + half + i, xb);
      for (int k = 0; k < kVec; ++k) {
        a[k] = scale * a[k] * weight[i + k] - xa[k] * pull;
        b[k] = scale * b[k] * weight[half + i + k] - xb[k] * pull;
      }
      store(out + i, a);
      store(out + half + i, b);
    }
    if (tail)
      out[dim - 1] = cuda::from_float<T>(scale * cuda::to_float(grad[dim - 1]) * weight[dim - 1] -
                                         cuda::to_float(x[dim - 1]) * pull);
  }
}

/// 16 bytes where both halves of every row start on 16 bytes, else element by element; lanes: the
/// smallest power of two that covers half a row at once, at most a warp.
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
    if (rows_aligned && shape.dim % (2 * kWide) == 0)
      fn(type, std::integral_constant<int, kWide>{});
    else
      fn(type, std::integral_constant<int, 1>{});
  });
}

}  // namespace

void rms_norm_forward_cuda(const RmsNormForward& p, void* stream) {
  visit_layout(p.shape, aligned(p.x, p.shape.dtype), [&](auto* type, auto vec) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int lanes = lanes_for(p.shape.dim / 2, vec.value);
    const int64_t rows = p.shape.batch * p.shape.length * p.shape.heads;
    cuda::launch(rms_norm_forward_kernel<T, decltype(vec)::value>,
                 cuda::blocks_for(rows * lanes, kThreads), kThreads,
                 Grouped<RmsNormForward>{p, lanes, rows}, stream);
  });
}

void rms_norm_backward_cuda(const RmsNormBackward& p, void* stream) {
  const bool fits = aligned(p.x, p.shape.dtype) && aligned(p.grad, p.shape.dtype);
  visit_layout(p.shape, fits, [&](auto* type, auto vec) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int lanes = lanes_for(p.shape.dim / 2, vec.value);
    const int64_t tokens = p.shape.batch * p.shape.length;
    const int64_t chunks = (tokens + p.shape.chunk_tokens - 1) / p.shape.chunk_tokens;
    cuda::launch(rms_norm_backward_kernel<T, decltype(vec)::value>,
                 cuda::blocks_for(chunks * lanes, kThreads), kThreads,
                 Grouped<RmsNormBackward>{p, lanes, chunks}, stream);
  });
}

}  // namespace cosmos::ops
