#pragma once

// Test-only stand-in for CUDA: runs the .cu sources on the CPU, so that they are exercised, under
// AddressSanitizer too, where no GPU is. Put this folder first on the include path.
//
// Blocks run one after the other. A block's threads are fibers on one OS thread: a fiber runs until
// it reaches __syncthreads, a warp shuffle or its end. That finds wrong indices, missing barriers
// (a thread reads what another has not written yet) and divergence: a barrier or shuffle that some
// threads never reach, which hangs or lies on a GPU, throws here. It does not find memory races
// between blocks, nor misuse of asynchronous copies.

#include <cmath>
#include <cstddef>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block at a time
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaError_t = int;
inline constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "no error";
}

using std::isfinite;
inline float rsqrtf(float x) {
  return 1.f / std::sqrt(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}

namespace cuda_emulation {

/// Runs `thread` for every thread of every block. Throws std::runtime_error on divergence.
void run(dim3 grid, int threads, const std::function<void()>& thread);

void block_barrier();
/// Puts `value` into this lane's slot, waits for the warp, and returns the slot of lane ^ `mask`.
float exchange(float value, int mask);

}  // namespace cuda_emulation

inline void __syncthreads() {
  cuda_emulation::block_barrier();
}
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  return cuda_emulation::exchange(value, mask);
}

template <typename Params>
void emulate(void (*kernel)(Params), dim3 grid, int threads, const Params& params) {
  cuda_emulation::run(grid, threads, [&] { kernel(params); });
}
