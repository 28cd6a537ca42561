#pragma once

// What the CUDA kernels share: element types, 16-byte vectors, sums over lanes and blocks, launch.
// No torch headers: a kernel file compiles in seconds. The test-only emulation provides its own
// <cuda_runtime.h> and runs the same sources on the CPU.

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdexcept>
#include <string>

#include "ops/core/dtype.h"

namespace cosmos::ops::cuda {

inline constexpr int kWarp = 32;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}

template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half(x);
}

/// kVec neighbouring elements, loaded and stored at once (16 bytes when kVec = 16 / sizeof(T)).
template <typename T, int kVec>
struct alignas(sizeof(T) * kVec) Vector {
  T value[kVec];
};

template <typename T, int kVec>
__device__ inline void load(const T* from, float (&to)[kVec]) {
  const auto packed = *reinterpret_cast<const Vector<T, kVec>*>(from);
#pragma unroll
  for (int k = 0; k < kVec; ++k) to[k] = to_float(packed.value[k]);
}

template <typename T, int kVec>
__device__ inline void store(T* to, const float (&from)[kVec]) {
  Vector<T, kVec> packed;
#pragma unroll
  for (int k = 0; k < kVec; ++k) packed.value[k] = from_float<T>(from[k]);
  *reinterpret_cast<Vector<T, kVec>*>(to) = packed;
}

/// Sum over groups of `lanes` neighbouring lanes (a power of two); every lane gets it.
__device__ inline float group_sum(float x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// Sum over the block; every thread gets it. The block is whole warps. `scratch`: kWarp floats of
/// shared memory.
__device__ inline float block_sum(float x, float* scratch) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warps = blockDim.x / kWarp;
  x = group_sum(x, kWarp);
  __syncthreads();  // an earlier sum may still be read
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return group_sum(lane < warps ? scratch[lane] : 0.f, kWarp);
}

template <typename Params>
void launch(void (*kernel)(Params), dim3 grid, int threads, const Params& params, void* stream) {
#ifdef __CUDACC__
  kernel<<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(params);
#else
  emulate(kernel, grid, threads, params);
#endif
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("CUDA kernel launch failed: ") +
                             cudaGetErrorString(status));
}

/// Calls fn with a null pointer of the element type. float64 never gets here (ops/core/path.h).
template <typename Fn>
void visit_dtype(DType dtype, Fn fn) {
  switch (dtype) {
    case DType::kFloat32:
      return fn(static_cast<float*>(nullptr));
    case DType::kBFloat16:
      return fn(static_cast<__nv_bfloat16*>(nullptr));
    case DType::kFloat16:
      return fn(static_cast<__half*>(nullptr));
    case DType::kFloat64:
      break;
  }
  throw std::runtime_error("CUDA kernels take float32, bfloat16 and float16, got float64");
}

inline bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

inline unsigned blocks_for(int64_t items, int64_t each) {
  const int64_t blocks = (items + each - 1) / each;
  if (blocks > 0x7fffffff) throw std::runtime_error("tensor too large for one kernel launch");
  return static_cast<unsigned>(blocks);
}

}  // namespace cosmos::ops::cuda
