// CUDA kernels of fp8_quantize.h. Runs: a group of lanes takes one run, finds its amax, and reads
// it again from L1 or L2 to cast it. Tiles: a block of 256 threads holds a tile of 128 x 128 in
// registers, so that amaxes along rows and columns and both casts cost one read; the transpose goes
// through shared memory. Casts are the hardware's (cvt.rn.satfinite from sm_89 on). Maxima are
// exact in any order: no atomics, the same bits on every run. Bytes as in fp8_quantize.h.

#include <cuda_fp8.h>

#include "ops/core/cuda.cuh"
#include "ops/fp8/fp8_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kVec = 8;  // elements a thread takes at once: 8 bytes of values

__device__ inline __nv_fp8_interpretation_t kind_of(Fp8Format format) {
  return format == Fp8Format::kE4M3 ? __NV_E4M3 : __NV_E5M2;
}

__device__ inline uint8_t to_fp8(float x, Fp8Format format) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, kind_of(format));
}

/// The larger of two numbers >= 0; NaN if one is.
__device__ inline float larger(float a, float b) {
  return a > b || a != a ? a : b;
}

__device__ inline float group_max(float x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2)
    x = larger(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

__device__ inline float block_max(float x) {
  __shared__ float warps[kThreads / cuda::kWarp];
  x = group_max(x, cuda::kWarp);
  if (threadIdx.x % cuda::kWarp == 0) warps[threadIdx.x / cuda::kWarp] = x;
  __syncthreads();
  for (int w = 0; w < kThreads / cuda::kWarp; ++w) x = larger(x, warps[w]);
  return x;
}

__device__ inline bool needs_amax(const Fp8Side& side) {
  return !side.given || side.amax;
}

/// The scale of a block whose amax is `amax`. `writer`: this thread stores what is one number a
/// block.
__device__ inline float settle(const Fp8Source& p, const Fp8Side& side, int64_t row, int64_t block,
                               int64_t blocks, float amax, bool writer) {
  if (writer && side.amax) side.amax[row * blocks + block] = amax;
  const int64_t at = row * side.row_stride + block * side.block_stride;
  const float max = p.format == Fp8Format::kE4M3 ? 448.f : 57344.f;
  const bool formula = !side.given || side.given_is_amax;
  const float scale =
      formula ? fp8_scale(side.given ? side.given[at] : amax, max, p.power_of_two) : side.given[at];
  if (writer && writes_scale(side, row, block)) side.scale[at] = scale;
  return scale;
}

struct GroupedRuns {
  Fp8Runs runs;
  int lanes;
};

template <typename T, int kWide>
__global__ void __launch_bounds__(kThreads) runs_kernel(GroupedRuns g) {
  const Fp8Source& p = g.runs.source;
  const Fp8Side& side = g.runs.side;
  const int64_t blocks = blocks_of(p.columns, g.runs.run);
  const int64_t k = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / g.lanes;
  const int lane = threadIdx.x % g.lanes, step = g.lanes * kWide;
  const bool mine = k < p.rows * blocks;
  const int64_t row = k / blocks, block = k % blocks, first = block * g.runs.run;
  const int64_t left = p.columns - first, n = !mine ? 0 : left < g.runs.run ? left : g.runs.run;
  const T* x = static_cast<const T*>(p.x) + (mine ? row * p.columns + first : 0);
  float amax = 0;
  if (needs_amax(side))
    for (int64_t i = lane * kWide; i < n; i += step) {
      float v[kWide];
      cuda::load(x + i, v);
      for (int j = 0; j < kWide; ++j) amax = larger(amax, fabsf(v[j]));
    }
  amax = group_max(amax, g.lanes);  // every lane of the warp takes part
  if (!mine) return;
  const float inverse = 1.f / settle(p, side, row, block, blocks, amax, lane == 0);
  if (!side.values) return;
  uint8_t* to = side.values + row * p.columns + first;
  for (int64_t i = lane * kWide; i < n; i += step) {
    float v[kWide];
    cuda::load(x + i, v);
    cuda::Vector<uint8_t, kWide> packed;
    for (int j = 0; j < kWide; ++j) packed.value[j] = to_fp8(v[j] * inverse, p.format);
    *reinterpret_cast<cuda::Vector<uint8_t, kWide>*>(to + i) = packed;
  }
}

constexpr int kTile = kFp8Block, kLanes = kTile / kVec;  // 16 lanes cover 128 columns, or rows
using Bytes = cuda::Vector<uint8_t, kVec>;

/// A thread's 8 x 8 elements of a tile: rows r .. r + 7, columns c .. c + 7. Outside x they are 0.
struct Patch {
  int64_t tile_row, tile_column, r, c;
  float v[kVec][kVec];
};

template <typename T>
__device__ void load_patch(const Fp8Source& p, bool wide, Patch& a) {
  const int64_t across = blocks_of(p.columns, kTile);
  a.tile_row = blockIdx.x / across;
  a.tile_column = blockIdx.x % across;
  a.r = a.tile_row * kTile + threadIdx.x / kLanes * kVec;
  a.c = a.tile_column * kTile + threadIdx.x % kLanes * kVec;
  for (int i = 0; i < kVec; ++i) {
    const T* x = static_cast<const T*>(p.x) + (a.r + i) * p.columns + a.c;
    if (wide && a.r + i < p.rows && a.c < p.columns) {
      cuda::load(x, a.v[i]);
      continue;
    }
    for (int j = 0; j < kVec; ++j)
      a.v[i][j] = a.r + i < p.rows && a.c + j < p.columns ? cuda::to_float(x[j]) : 0.f;
  }
}

/// Values of the tile's rows; inverse[i] is 1 / scale of row i, below of column i.
__device__ inline void store_rows(const Fp8Source& p, const Patch& a, const float (&inverse)[kVec],
                                  uint8_t* values, bool wide) {
  for (int i = 0; i < kVec && a.r + i < p.rows; ++i) {
    uint8_t* to = values + (a.r + i) * p.columns + a.c;
    Bytes packed;
    for (int j = 0; j < kVec; ++j) packed.value[j] = to_fp8(a.v[i][j] * inverse[i], p.format);
    if (wide && a.c < p.columns)
      *reinterpret_cast<Bytes*>(to) = packed;
    else
      for (int j = 0; j < kVec && a.c + j < p.columns; ++j) to[j] = packed.value[j];
  }
}

/// Values of the tile's columns, turned in shared memory so that 16 neighbouring threads write one
/// row of x^T.
__device__ inline void store_columns(const Fp8Source& p, const Patch& a,
                                     const float (&inverse)[kVec], uint8_t* values, bool wide) {
  __shared__ Bytes turned[kTile][kLanes + 1];
  const int across = threadIdx.x % kLanes, down = threadIdx.x / kLanes;
  for (int j = 0; j < kVec; ++j) {
    Bytes packed;
    for (int i = 0; i < kVec; ++i) packed.value[i] = to_fp8(a.v[i][j] * inverse[j], p.format);
    turned[across * kVec + j][down] = packed;
  }
  __syncthreads();
  const int64_t r = a.tile_row * kTile + across * kVec;  // as a column of x^T
  for (int k = down; k < kTile; k += kThreads / kLanes) {
    const int64_t c = a.tile_column * kTile + k;
    if (c >= p.columns) break;
    uint8_t* to = values + c * p.rows + r;
    const Bytes packed = turned[k][across];
    if (wide && r < p.rows)
      *reinterpret_cast<Bytes*>(to) = packed;
    else
      for (int i = 0; i < kVec && r + i < p.rows; ++i) to[i] = packed.value[i];
  }
}

struct GuardedTiles {
  Fp8Tiles tiles;
  bool wide_rows, wide_columns;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) square_tiles_kernel(GuardedTiles g) {
  const Fp8Tiles& p = g.tiles;
  Patch a;
  load_patch<T>(p.source, g.wide_rows, a);
  float amax = 0;
  if (needs_amax(p.side)) {
    for (int i = 0; i < kVec; ++i)
      for (int j = 0; j < kVec; ++j) amax = larger(amax, fabsf(a.v[i][j]));
    amax = block_max(amax);
  }
  const float scale = settle(p.source, p.side, a.tile_row, a.tile_column,
                             blocks_of(p.source.columns, kTile), amax, threadIdx.x == 0);
  float inverse[kVec];
  for (int i = 0; i < kVec; ++i) inverse[i] = 1.f / scale;
  if (p.side.values) store_rows(p.source, a, inverse, p.side.values, g.wide_rows);
  if (p.transposed.values) store_columns(p.source, a, inverse, p.transposed.values, g.wide_columns);
}

/// Reciprocals of the scales of the thread's 8 columns, whose amaxes 16 threads share.
__device__ inline void settle_columns(const Fp8Tiles& p, const Patch& a, float (&inverse)[kVec]) {
  __shared__ float maxima[kLanes][kTile];
  const int across = threadIdx.x % kLanes * kVec, down = threadIdx.x / kLanes;
  for (int j = 0; j < kVec; ++j) {
    float amax = 0;
    for (int i = 0; i < kVec; ++i) amax = larger(amax, fabsf(a.v[i][j]));
    maxima[down][across + j] = amax;
  }
  __syncthreads();
  const int64_t blocks = blocks_of(p.source.rows, kTile);
  for (int j = 0; j < kVec; ++j) {
    float amax = 0;
    for (int k = 0; k < kLanes; ++k) amax = larger(amax, maxima[k][across + j]);
    inverse[j] = 0;
    if (a.c + j < p.source.columns)
      inverse[j] =
          1.f / settle(p.source, p.transposed, a.c + j, a.tile_row, blocks, amax, down == 0);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) run_tiles_kernel(GuardedTiles g) {
  const Fp8Tiles& p = g.tiles;
  Patch a;
  load_patch<T>(p.source, g.wide_rows, a);
  float inverse[kVec];
  if (p.side.values || p.side.amax) {
    const int64_t blocks = blocks_of(p.source.columns, kTile);
    for (int i = 0; i < kVec; ++i) {
      float amax = 0;
      for (int j = 0; j < kVec; ++j) amax = larger(amax, fabsf(a.v[i][j]));
      amax = group_max(amax, kLanes);
      inverse[i] = 0;
      if (a.r + i < p.source.rows)
        inverse[i] = 1.f / settle(p.source, p.side, a.r + i, a.tile_column, blocks, amax,
                                  threadIdx.x % kLanes == 0);
    }
    if (p.side.values) store_rows(p.source, a, inverse, p.side.values, g.wide_rows);
  }
  if (p.transposed.values || p.transposed.amax) {
    settle_columns(p, a, inverse);
    if (p.transposed.values)
      store_columns(p.source, a, inverse, p.transposed.values, g.wide_columns);
  }
}

template <typename T, int kWide>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(Fp8Dequantize p) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWide;
  if (i >= p.rows * p.columns) return;
  const int64_t row = i / p.columns, block = i % p.columns / p.run;
  const float scale = p.scale[row / p.row_group * p.row_stride + block * p.block_stride];
  const auto packed = *reinterpret_cast<const cuda::Vector<uint8_t, kWide>*>(p.values + i);
  float v[kWide];
  for (int j = 0; j < kWide; ++j)
    v[j] =
        __half2float(__half(__nv_cvt_fp8_to_halfraw(packed.value[j], kind_of(p.format)))) * scale;
  cuda::store(static_cast<T*>(p.out) + i, v);
}

bool aligned_to(const void* p, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

/// Eight neighbours of every row can be read and written at once.
template <typename T>
bool wide(const Fp8Source& p, const Fp8Side& side) {
  return p.columns % kVec == 0 && aligned_to(p.x, kVec * sizeof(T)) &&
         aligned_to(side.values, kVec);
}

int lanes_for(int64_t run, int vec) {
  int lanes = 1;
  while (lanes < cuda::kWarp && lanes * vec < run) lanes *= 2;
  return lanes;
}

}  // namespace

void fp8_runs_cuda(const Fp8Runs& p, void* stream) {
  const int64_t runs = p.source.rows * blocks_of(p.source.columns, p.run);
  cuda::visit_dtype(p.source.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool all_wide = wide<T>(p.source, p.side) && (p.run % kVec == 0);
    const int lanes = lanes_for(p.run, all_wide ? kVec : 1);
    cuda::launch(all_wide ? runs_kernel<T, kVec> : runs_kernel<T, 1>,
                 cuda::blocks_for(runs * lanes, kThreads), kThreads, GroupedRuns{p, lanes}, stream);
  });
}

void fp8_tiles_cuda(const Fp8Tiles& p, void* stream) {
  const int64_t tiles = blocks_of(p.source.rows, kTile) * blocks_of(p.source.columns, kTile);
  cuda::visit_dtype(p.source.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const GuardedTiles guarded{p, wide<T>(p.source, p.side),
                               p.source.rows % kVec == 0 && aligned_to(p.transposed.values, kVec)};
    cuda::launch(p.square ? square_tiles_kernel<T> : run_tiles_kernel<T>,
                 cuda::blocks_for(tiles, 1), kThreads, guarded, stream);
  });
}

void fp8_dequantize_runs_cuda(const Fp8Dequantize& p, void* stream) {
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool all_wide = p.columns % kVec == 0 && p.run % kVec == 0 &&
                          aligned_to(p.values, kVec) && aligned_to(p.out, kVec * sizeof(T));
    const int64_t threads = p.rows * p.columns / (all_wide ? kVec : 1);
    cuda::launch(all_wide ? dequantize_kernel<T, kVec> : dequantize_kernel<T, 1>,
                 cuda::blocks_for(threads, kThreads), kThreads, p, stream);
  });
}

}  // namespace cosmos::ops
