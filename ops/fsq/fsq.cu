// CUDA rows of fsq.h: one thread a row. Rows are a few elements (24 bytes for D = 6 in float32), so
// a warp's rows are one stretch of memory whose lines stay in L1 until its threads have walked
// them. Bytes as in fsq.h.

#include "ops/core/cuda.cuh"
#include "ops/fsq/fsq_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 256;

__device__ inline int64_t thread_row() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ inline float squashed(const FsqLevels& l, int d, float z) {
  return tanhf(z + static_cast<float>(l.shift[d]));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) fsq_forward_kernel(FsqForward p) {
  const FsqLevels& l = p.levels;
  const int64_t r = thread_row();
  if (r >= p.rows) return;
  const T* z = static_cast<const T*>(p.z) + r * l.dims;
  T* codes = static_cast<T*>(p.codes) + r * l.dims;
  int32_t index = 0;
  for (int d = 0; d < l.dims; ++d) {
    const int width = l.levels[d] / 2;
    const float rounded =
        rintf(squashed(l, d, cuda::to_float(z[d])) * static_cast<float>(l.half[d]) -
              static_cast<float>(l.offset[d]));
    codes[d] = cuda::from_float<T>(rounded / static_cast<float>(width));
    index += (static_cast<int32_t>(rounded) + width) * l.basis[d];
  }
  p.indices[r] = index;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) fsq_backward_kernel(FsqBackward p) {
  const FsqLevels& l = p.levels;
  const int64_t r = thread_row();
  if (r >= p.rows) return;
  for (int d = 0; d < l.dims; ++d) {
    const int64_t i = r * l.dims + d;
    const float t = squashed(l, d, cuda::to_float(static_cast<const T*>(p.z)[i]));
    const float grad = cuda::to_float(static_cast<const T*>(p.grad)[i]);
    static_cast<T*>(p.grad_z)[i] = cuda::from_float<T>(
        grad * (1.f - t * t) * static_cast<float>(l.half[d]) / static_cast<float>(l.levels[d] / 2));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) fsq_decode_kernel(FsqDecode p) {
  const FsqLevels& l = p.levels;
  const int64_t r = thread_row();
  if (r >= p.rows) return;
  int32_t rest = p.indices[r];
  for (int d = 0; d < l.dims; ++d) {
    const int32_t width = l.levels[d] / 2;
    static_cast<T*>(p.codes)[r * l.dims + d] = cuda::from_float<T>(
        static_cast<float>(rest % l.levels[d] - width) / static_cast<float>(width));
    rest /= l.levels[d];
  }
}

}  // namespace

void fsq_forward_cuda(const FsqForward& p, void* stream) {
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    cuda::launch(fsq_forward_kernel<std::remove_pointer_t<decltype(type)>>,
                 cuda::blocks_for(p.rows, kThreads), kThreads, p, stream);
  });
}

void fsq_backward_cuda(const FsqBackward& p, void* stream) {
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    cuda::launch(fsq_backward_kernel<std::remove_pointer_t<decltype(type)>>,
                 cuda::blocks_for(p.rows, kThreads), kThreads, p, stream);
  });
}

void fsq_decode_cuda(const FsqDecode& p, void* stream) {
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    cuda::launch(fsq_decode_kernel<std::remove_pointer_t<decltype(type)>>,
                 cuda::blocks_for(p.rows, kThreads), kThreads, p, stream);
  });
}

}  // namespace cosmos::ops
