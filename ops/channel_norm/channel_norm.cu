// CUDA tiles of channel_norm.h.
//
// Planes: a block takes 32 vectors of neighbouring positions, a lane one of them; its 8 warps share
// the channels, and add their sums per position through shared memory. Rows (channels-last): a row
// belongs to a group of lanes, as in rms_norm.cu; in backward a group works through one tile alone.
// Either way each partial gradient of gamma has one writer: no atomics. The second walk over x hits
// L1 or L2. Bytes as in channel_norm.h.

#include "ops/channel_norm/channel_norm_kernel.h"
#include "ops/core/cuda.cuh"

namespace cosmos::ops {
namespace {

using cuda::load;
using cuda::store;

constexpr int kThreads = 256, kWarps = kThreads / cuda::kWarp;

__device__ inline float activated(float y, bool silu) {
  return silu ? y / (1.f + expf(-y)) : y;
}

/// Gradient of y, where out = silu(y) or y.
__device__ inline float output_gradient(float grad, float y, bool silu) {
  if (!silu) return grad;
  const float s = 1.f / (1.f + expf(-y));
  return grad * s * (1.f + y * (1.f - s));
}

/// sqrt(C) / max(|x|, eps) from |x|².
__device__ inline float scale_of(float square, int64_t channels, float eps) {
  const float length = sqrtf(square);
  return sqrtf(static_cast<float>(channels)) / (length < eps ? eps : length);
}

/// What grad_x loses along x. Below eps the norm is a constant.
__device__ inline float pull_along(float scale, float dot, float square, float eps) {
  const float length = sqrtf(square);
  return length < eps ? 0.f : scale * (dot / length) / length;
}

// ---- planes

/// Each thread's kVec values summed over the block's warps, lane by lane, in a fixed order.
template <int kVec>
__device__ inline void sum_over_warps(float (&x)[kVec], float (*sums)[cuda::kWarp * kVec]) {
  const int lane = threadIdx.x % cuda::kWarp, warp = threadIdx.x / cuda::kWarp;
  __syncthreads();  // an earlier sum may still be read
  for (int k = 0; k < kVec; ++k) sums[warp][lane * kVec + k] = x[k];
  __syncthreads();
  for (int k = 0; k < kVec; ++k) {
    x[k] = 0;
    for (int w = 0; w < kWarps; ++w) x[k] += sums[w][lane * kVec + k];
  }
}

/// |x|² of this lane's kVec positions, the same in every warp.
template <typename T, int kVec>
__device__ inline void squares(const T* x, const ChannelTiles& shape, bool mine,
                               float (*sums)[cuda::kWarp * kVec], float (&square)[kVec]) {
  for (int k = 0; k < kVec; ++k) square[k] = 0;
  for (int64_t c = threadIdx.x / cuda::kWarp; mine && c < shape.channels; c += kWarps) {
    float value[kVec];
    load(x + c * shape.positions, value);
    for (int k = 0; k < kVec; ++k) square[k] += value[k] * value[k];
  }
  sum_over_warps<kVec>(square, sums);
}

/// Where this block's tile starts and ends in its sample, and its sample's first element.
struct Tile {
  int64_t base, begin, end;
};
__device__ inline Tile tile_of(const ChannelTiles& shape, int64_t u) {
  const int64_t begin = u % shape.tiles * shape.tile, end = begin + shape.tile;
  return {u / shape.tiles * shape.channels * shape.positions, begin,
          end < shape.positions ? end : shape.positions};
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) forward_planes_kernel(ChannelNormForward p) {
  __shared__ float sums[kWarps][cuda::kWarp * kVec];
  const float eps = static_cast<float>(p.eps);
  const Tile tile = tile_of(p.shape, blockIdx.x);
  for (int64_t step = tile.begin; step < tile.end; step += cuda::kWarp * kVec) {
    const int64_t position = step + threadIdx.x % cuda::kWarp * kVec;
    const bool mine = position < tile.end;
    const T* x = static_cast<const T*>(p.x) + tile.base + position;
    T* out = static_cast<T*>(p.out) + tile.base + position;
    float scale[kVec];
    squares<T, kVec>(x, p.shape, mine, sums, scale);
    for (int k = 0; k < kVec; ++k) scale[k] = scale_of(scale[k], p.shape.channels, eps);
    for (int64_t c = threadIdx.x / cuda::kWarp; mine && c < p.shape.channels; c += kWarps) {
      const float gamma = static_cast<const float*>(p.gamma)[c];
      float value[kVec];
      load(x + c * p.shape.positions, value);
      for (int k = 0; k < kVec; ++k)
        value[k] = activated(value[k] * scale[k] * gamma, p.activation);
      store(out + c * p.shape.positions, value);
    }
  }
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) backward_planes_kernel(ChannelNormBackward p) {
  __shared__ float sums[kWarps][cuda::kWarp * kVec];
  const float eps = static_cast<float>(p.eps);
  const int lane = threadIdx.x % cuda::kWarp, warp = threadIdx.x / cuda::kWarp;
  const int64_t channels = p.shape.channels, positions = p.shape.positions;
  const Tile tile = tile_of(p.shape, blockIdx.x);
  float* gamma_sum =
      p.gamma_partial ? static_cast<float*>(p.gamma_partial) + blockIdx.x * channels : nullptr;
  for (int64_t step = tile.begin; step < tile.end; step += cuda::kWarp * kVec) {
    const int64_t position = step + lane * kVec;
    const bool mine = position < tile.end;
    const T* x = static_cast<const T*>(p.x) + tile.base + position;
    const T* grad = static_cast<const T*>(p.grad) + tile.base + position;
    T* grad_x = static_cast<T*>(p.grad_x) + tile.base + position;
    float square[kVec], scale[kVec], pull[kVec] = {};
    squares<T, kVec>(x, p.shape, mine, sums, square);
    for (int k = 0; k < kVec; ++k) scale[k] = scale_of(square[k], channels, eps);
    for (int64_t c = warp; c < channels; c += kWarps) {  // all lanes: the sum below needs them
      const float gamma = static_cast<const float*>(p.gamma)[c];
      float value[kVec] = {}, g[kVec] = {}, sum = 0;
      if (mine) {
        load(x + c * positions, value);
        load(grad + c * positions, g);
      }
      for (int k = 0; k < kVec; ++k) {
        const float along =
            output_gradient(g[k], value[k] * scale[k] * gamma, p.activation) * value[k];
        pull[k] += along * gamma;
        sum += mine ? along * scale[k] : 0.f;
      }
      sum = cuda::group_sum(sum, cuda::kWarp);
      if (gamma_sum && lane == 0) gamma_sum[c] = step == tile.begin ? sum : gamma_sum[c] + sum;
    }
    sum_over_warps<kVec>(pull, sums);
    for (int k = 0; k < kVec; ++k) pull[k] = pull_along(scale[k], pull[k], square[k], eps);
    for (int64_t c = warp; mine && c < channels; c += kWarps) {
      const float gamma = static_cast<const float*>(p.gamma)[c];
      float value[kVec], g[kVec];
      load(x + c * positions, value);
      load(grad + c * positions, g);
      for (int k = 0; k < kVec; ++k)
        g[k] = scale[k] * gamma * output_gradient(g[k], value[k] * scale[k] * gamma, p.activation) -
               value[k] * pull[k];
      store(grad_x + c * positions, g);
    }
  }
}

// ---- rows

/// `lanes` travels beside the params: kernels take one struct.
template <typename Params>
struct Grouped {
  Params params;
  int lanes;
  int64_t groups;  ///< rows in forward, tiles in backward
};

/// |x|² of a row that `lanes` lanes share. Every lane of the warp must call it; lanes without a row
/// pass null.
template <typename T, int kVec>
__device__ inline float row_square(const T* x, int64_t channels, int lane, int lanes) {
  float square = 0;
  for (int64_t c = lane * kVec; x && c < channels; c += lanes * kVec) {
    float value[kVec];
    load(x + c, value);
    for (int k = 0; k < kVec; ++k) square += value[k] * value[k];
  }
  return cuda::group_sum(square, lanes);
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) forward_rows_kernel(Grouped<ChannelNormForward> g) {
  const ChannelNormForward& p = g.params;
  const int lane = threadIdx.x % g.lanes;
  const int64_t r = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / g.lanes;
  const int64_t channels = p.shape.channels;
  const float* gamma = static_cast<const float*>(p.gamma);
  const T* x = r < g.groups ? static_cast<const T*>(p.x) + r * channels : nullptr;
  const float square = row_square<T, kVec>(x, channels, lane, g.lanes);
  const float scale = scale_of(square, channels, static_cast<float>(p.eps));
  T* out = static_cast<T*>(p.out) + r * channels;
  for (int64_t c = lane * kVec; x && c < channels; c += g.lanes * kVec) {
    float value[kVec];
    load(x + c, value);
    for (int k = 0; k < kVec; ++k)
      value[k] = activated(value[k] * scale * gamma[c + k], p.activation);
    store(out + c, value);
  }
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) backward_rows_kernel(Grouped<ChannelNormBackward> g) {
  const ChannelNormBackward& p = g.params;
  const int lane = threadIdx.x % g.lanes;
  const int64_t u = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / g.lanes;
  const int64_t channels = p.shape.channels, stride = g.lanes * kVec;
  const float eps = static_cast<float>(p.eps);
  const float* gamma = static_cast<const float*>(p.gamma);
  // Each lane owns its columns of the partial row, in memory: they stay in L1.
  float* gamma_sum = p.gamma_partial && u < g.groups
                         ? static_cast<float*>(p.gamma_partial) + u * channels
                         : nullptr;
  for (int64_t c = lane * kVec; gamma_sum && c < channels; c += stride)
    for (int k = 0; k < kVec; ++k) gamma_sum[c + k] = 0;
  for (int64_t n = 0; n < p.shape.tile; ++n) {  // the same count for all lanes: sums need them
    const int64_t r = u * p.shape.tile + n;
    const bool mine = u < g.groups && r < p.shape.positions;
    const T* x = mine ? static_cast<const T*>(p.x) + r * channels : nullptr;
    const T* grad = static_cast<const T*>(p.grad) + r * channels;
    T* grad_x = static_cast<T*>(p.grad_x) + r * channels;
    const float square = row_square<T, kVec>(x, channels, lane, g.lanes);
    const float scale = scale_of(square, channels, eps);
    float dot = 0;
    for (int64_t c = lane * kVec; mine && c < channels; c += stride) {
      float value[kVec], from[kVec];
      load(x + c, value);
      load(grad + c, from);
      for (int k = 0; k < kVec; ++k) {
        const float along =
            value[k] * output_gradient(from[k], value[k] * scale * gamma[c + k], p.activation);
        dot += along * gamma[c + k];
        if (gamma_sum) gamma_sum[c + k] += along * scale;
      }
    }
    const float pull = pull_along(scale, cuda::group_sum(dot, g.lanes), square, eps);
    for (int64_t c = lane * kVec; mine && c < channels; c += stride) {
      float value[kVec], from[kVec];
      load(x + c, value);
      load(grad + c, from);
      for (int k = 0; k < kVec; ++k) {
        const float weight = gamma[c + k];
        from[k] =
            scale * weight * output_gradient(from[k], value[k] * scale * weight, p.activation) -
            value[k] * pull;
      }
      store(grad_x + c, from);
    }
  }
}

int lanes_for(int64_t channels, int vec) {
  int lanes = 1;
  while (lanes < cuda::kWarp && lanes * vec < channels) lanes *= 2;
  return lanes;
}

/// 16 bytes where every row or plane starts on 16 bytes, else element by element.
template <typename Fn>
void visit_layout(const ChannelTiles& shape, bool pointers_aligned, Fn fn) {
  cuda::visit_dtype(shape.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kWide = 16 / sizeof(T);
    const int64_t run = shape.rows ? shape.channels : shape.positions;
    if (pointers_aligned && run % kWide == 0 && shape.tile % kWide == 0)
      fn(type, std::integral_constant<int, kWide>{});
    else
      fn(type, std::integral_constant<int, 1>{});
  });
}

}  // namespace

void channel_norm_forward_cuda(const ChannelNormForward& p, void* stream) {
  visit_layout(p.shape, cuda::aligned(p.x) && cuda::aligned(p.out), [&](auto* type, auto vec) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kVec = decltype(vec)::value;
    const int lanes = lanes_for(p.shape.channels, kVec);
    if (p.shape.rows)
      cuda::launch(forward_rows_kernel<T, kVec>,
                   cuda::blocks_for(p.shape.positions * lanes, kThreads), kThreads,
                   Grouped<ChannelNormForward>{p, lanes, p.shape.positions}, stream);
    else
      cuda::launch(forward_planes_kernel<T, kVec>,
                   cuda::blocks_for(p.shape.batch * p.shape.tiles, 1), kThreads, p, stream);
  });
}

void channel_norm_backward_cuda(const ChannelNormBackward& p, void* stream) {
  const bool fits = cuda::aligned(p.x) && cuda::aligned(p.grad) && cuda::aligned(p.grad_x);
  visit_layout(p.shape, fits, [&](auto* type, auto vec) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kVec = decltype(vec)::value;
    const int lanes = lanes_for(p.shape.channels, kVec);
    if (p.shape.rows)
      cuda::launch(backward_rows_kernel<T, kVec>, cuda::blocks_for(p.shape.tiles * lanes, kThreads),
                   kThreads, Grouped<ChannelNormBackward>{p, lanes, p.shape.tiles}, stream);
    else
      cuda::launch(backward_planes_kernel<T, kVec>,
                   cuda::blocks_for(p.shape.batch * p.shape.tiles, 1), kThreads, p, stream);
  });
}

}  // namespace cosmos::ops
