// CUDA rows of patchify.h: a block takes one row of tokens, its threads walk what they write in
// order, so that stores are coalesced; the row's other side stays in L1 until all of it is used.

#include <cstdint>
#include <stdexcept>

#include "ops/core/cuda.cuh"
#include "ops/patchify/patchify_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 256;

/// Video offset of the element (c, dt, dh, column) of a row of patches.
__device__ inline int64_t video_offset(const Patches& p, int64_t row, int c, int dt, int dh,
                                       int64_t column) {
  const int64_t j = row % p.h, i = row / p.h % p.t, b = row / p.h / p.t;
  return b * p.video[0] + c * p.video[1] + (i * p.pt + dt) * p.video[2] +
         (j * p.ph + dh) * p.video[3] + column * p.video[4];
}

template <typename T>
__global__ void __launch_bounds__(kThreads) patchify_kernel(Patchify params) {
  const Patches& p = params.patches;
  const int64_t row = blockIdx.x;
  const int features = static_cast<int>(p.features), count = static_cast<int>(p.w * p.features);
  const int pt = static_cast<int>(p.pt), ph = static_cast<int>(p.ph), pw = static_cast<int>(p.pw);
  const bool channels_first = p.token[3] == 1;
  const int channels = static_cast<int>(p.channels);
  const T* video = static_cast<const T*>(params.video);
  T* tokens = static_cast<T*>(params.tokens) + row * count;
  for (int n = threadIdx.x; n < count; n += kThreads) {
    const int k = n / features, f = n % features;
    int c, dt, dh, dw;
    if (channels_first) {
      dw = f % pw, dh = f / pw % ph, dt = f / pw / ph % pt, c = f / pw / ph / pt;
    } else {
      c = f % channels, dt = f / channels % pt, dw = f / channels / pt % pw,
      dh = f / channels / pt / pw;
    }
    tokens[n] = video[video_offset(p, row, c, dt, dh, static_cast<int64_t>(k) * pw + dw)];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) unpatchify_kernel(Unpatchify params) {
  const Patches& p = params.patches;
  const int64_t row = blockIdx.x;
  const int pt = static_cast<int>(p.pt), ph = static_cast<int>(p.ph), pw = static_cast<int>(p.pw);
  const int columns = static_cast<int>(p.w) * pw;
  const int count = static_cast<int>(p.w * p.features);
  const T* tokens = static_cast<const T*>(params.tokens) + row * p.w * p.features;
  T* video = static_cast<T*>(params.video);
  for (int n = threadIdx.x; n < count; n += kThreads) {
    const int column = n % columns, line = n / columns;
    const int dh = line % ph, dt = line / ph % pt, c = line / ph / pt;
    video[video_offset(p, row, c, dt, dh, column)] =
        tokens[column / pw * p.features + c * p.token[0] + dt * p.token[1] + dh * p.token[2] +
               column % pw * p.token[3]];
  }
}

/// A block's numbers within a row are of 32 bits.
void check_row(const Patches& p) {
  if (p.w * p.features > 0x7fffffff)
    throw std::runtime_error("patchify: a row of patches has more than 2^31 elements");
}

}  // namespace

void patchify_cuda(const Patchify& p, void* stream) {
  check_row(p.patches);
  visit_bytes(p.patches.bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(patchify_kernel<T>, cuda::blocks_for(p.patches.rows(), 1), kThreads, p, stream);
  });
}

void unpatchify_cuda(const Unpatchify& p, void* stream) {
  check_row(p.patches);
  visit_bytes(p.patches.bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(unpatchify_kernel<T>, cuda::blocks_for(p.patches.rows(), 1), kThreads, p, stream);
  });
}

}  // namespace cosmos::ops
