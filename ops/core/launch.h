#pragma once

// Sends a filled-in params struct to the device that holds the tensors.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#ifdef COSMOS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
#define COSMOS_CUDA_KERNEL(name) name
#else
#define COSMOS_CUDA_KERNEL(name) nullptr
#endif

namespace cosmos::ops {

/// Runs `cpu(params, begin, end)` over [0, count) on the ATen threads, `grain` indices at least a
/// thread; or `cuda(params, stream)` on the current stream of like's device; or nothing for meta
/// tensors. Call as launch(x, p, count, grain, name, COSMOS_CUDA_KERNEL(name_cuda)).
template <typename Params, typename Cpu, typename Cuda>
void launch(const at::Tensor& like, const Params& params, int64_t count, int64_t grain, Cpu cpu,
            [[maybe_unused]] Cuda cuda) {
  if (like.is_meta() || count == 0) return;
#ifdef COSMOS_CUDA
  if (like.is_cuda()) {
    const c10::cuda::CUDAGuard guard(like.device());
    return cuda(params, c10::cuda::getCurrentCUDAStream(like.get_device()).stream());
  }
#endif
#ifdef COSMOS_CUDA_EMULATION  // the tests' build: CUDA kernels on CPU tensors
  return cuda(params, nullptr);
#endif
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { cpu(params, begin, end); });
}

/// Rows of `dim` elements that are worth a thread of their own (about 16k elements).
inline int64_t grain_rows(int64_t dim) {
  return 1 + 16384 / (dim > 0 ? dim : 1);
}

}  // namespace cosmos::ops
