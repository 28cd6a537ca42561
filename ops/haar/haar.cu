// CUDA blocks of haar.h. A CUDA block transforms one channel of 2048 / p³ neighbouring patches in
// shared memory: 256 threads with 8 values each, which is one level's step in registers. Threads
// with neighbouring numbers touch neighbouring samples of the video. The bands of a patch lie C
// elements apart, so the C blocks of the same patches fill each other's cache lines in L2.
// Bytes as in haar.h.

#include "ops/core/cuda.cuh"
#include "ops/haar/haar_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 256, kValues = 2048;
constexpr int kMostPatches = kValues / 8;

/// Places in shared memory: patches side by side, one more than there are, so that the walks along
/// the other axis hit different banks.
template <int kP>
struct Places {
  static constexpr int kSize = kP * kP * kP, kPatches = kValues / kSize, kStride = kPatches + 1;
  float at[kSize * kStride];
};

/// Where a patch lies: its first sample in the video (of channel c, frame 0), its first frame.
struct Origin {
  int64_t sample, frame;
  bool used;
};

template <int kP>
__device__ inline Origin origin_of(const HaarTransform& p, int64_t patch, int64_t c) {
  const int64_t w = patch % p.blocks_w, h = patch / p.blocks_w % p.blocks_h;
  const int64_t t = patch / (p.blocks_w * p.blocks_h) % p.blocks_t;
  const int64_t b = patch / (p.blocks_w * p.blocks_h * p.blocks_t);
  const int64_t width = p.blocks_w * kP, height = p.blocks_h * kP;
  const int64_t lead = p.front == HaarFront::kNone ? 0 : kP - 1;
  return {((b * p.channels + c) * p.frames * height + h * kP) * width + w * kP, t * kP - lead,
          b < p.batch};
}

template <int kP>
__device__ inline void transform(Places<kP>& x) {
  constexpr int kStride = Places<kP>::kStride, kPatches = Places<kP>::kPatches;
  for (int step = 1; step < kP; step *= 2) {
    __syncthreads();
    // This thread's eighth of the block's cubes of 2 x 2 x 2: patch and lowest corner.
    const int patch = threadIdx.x % kPatches, cube = threadIdx.x / kPatches;
    constexpr int kHalf = kP / 2;
    const auto corner = [step](int i) { return i / step * 2 * step + i % step; };
    const int t = corner(cube / (kHalf * kHalf)), h = corner(cube / kHalf % kHalf);
    const int w = corner(cube % kHalf);
    float* at = x.at + ((t * kP + h) * kP + w) * kStride + patch;
    const int along[3] = {step * kStride, step * kP * kStride, step * kP * kP * kStride};
    float v[8];
    for (int k = 0; k < 8; ++k)
      v[k] = at[(k & 1) * along[0] + (k >> 1 & 1) * along[1] + (k >> 2) * along[2]];
    for (int bit = 1; bit < 8; bit *= 2)
      for (int k = 0; k < 8; ++k)
        if (!(k & bit)) {
          const float low = v[k], high = v[k | bit];
          v[k] = low + high;
          v[k | bit] = low - high;
        }
    for (int k = 0; k < 8; ++k)
      at[(k & 1) * along[0] + (k >> 1 & 1) * along[1] + (k >> 2) * along[2]] = v[k];
  }
  __syncthreads();
}

/// Calls fn(patch of the block, t, h, w) for each of this thread's values, so that neighbouring
/// threads have neighbouring samples.
template <int kP, typename Fn>
__device__ inline void for_samples(Fn fn) {
  constexpr int kPatches = Places<kP>::kPatches;
  for (int i = threadIdx.x; i < kValues; i += kThreads) {
    const int w = i % kP, patch = i / kP % kPatches, row = i / (kP * kPatches);
    fn(patch, row / kP, row % kP, w);
  }
}

/// Calls fn(patch of the block, t, h, w, band), so that neighbouring threads have neighbouring
/// bands.
template <int kP, typename Fn>
__device__ inline void for_bands(Fn fn) {
  constexpr int kSize = Places<kP>::kSize;
  for (int i = threadIdx.x; i < kValues; i += kThreads) {
    const int band = i % kSize;
    int t = 0, h = 0, w = 0;
    for (int level = 0; (1 << level) < kP; ++level) {
      t |= (band >> (3 * level + 2) & 1) << level;
      h |= (band >> (3 * level + 1) & 1) << level;
      w |= (band >> (3 * level) & 1) << level;
    }
    fn(i / kSize, t, h, w, band);
  }
}

template <int kP>
__device__ inline int place(int patch, int t, int h, int w) {
  return ((t * kP + h) * kP + w) * Places<kP>::kStride + patch;
}

/// The block's channel and first patch, and the origins of its patches in shared memory.
template <int kP>
__device__ inline int64_t find_origins(const HaarTransform& p, int64_t c, Origin* origins) {
  const int64_t first = blockIdx.x / p.channels * Places<kP>::kPatches;
  if (threadIdx.x < Places<kP>::kPatches)
    origins[threadIdx.x] = origin_of<kP>(p, first + threadIdx.x, c);
  __syncthreads();
  return first;
}

template <typename T, int kP>
__global__ void __launch_bounds__(kThreads) haar_patch_kernel(HaarTransform p) {
  __shared__ Places<kP> x;
  __shared__ Origin origins[kMostPatches];
  const int64_t c = blockIdx.x % p.channels, first = find_origins<kP>(p, c, origins);
  const int64_t width = p.blocks_w * kP, height = p.blocks_h * kP;
  const T* from = static_cast<const T*>(p.from);
  for_samples<kP>([&](int patch, int t, int h, int w) {
    const Origin origin = origins[patch];
    const int64_t frame = origin.frame + t;
    const bool zero = frame < 0 && p.front == HaarFront::kStartTransposed;
    float value = 0;
    if (origin.used && !zero)
      value =
          cuda::to_float(from[origin.sample + ((frame < 0 ? 0 : frame) * height + h) * width + w]);
    x.at[place<kP>(patch, t, h, w)] = value;
  });
  transform<kP>(x);
  const float scale = static_cast<float>(p.scale);
  T* to = static_cast<T*>(p.to);
  for_bands<kP>([&](int patch, int t, int h, int w, int band) {
    if (origins[patch].used)
      to[((first + patch) * Places<kP>::kSize + band) * p.channels + c] =
          cuda::from_float<T>(x.at[place<kP>(patch, t, h, w)] * scale);
  });
}

template <typename T, int kP>
__global__ void __launch_bounds__(kThreads) haar_unpatch_kernel(HaarTransform p) {
  __shared__ Places<kP> x;
  __shared__ Origin origins[kMostPatches];
  const int64_t c = blockIdx.x % p.channels, first = find_origins<kP>(p, c, origins);
  const int64_t width = p.blocks_w * kP, height = p.blocks_h * kP;
  const T* from = static_cast<const T*>(p.from);
  for_bands<kP>([&](int patch, int t, int h, int w, int band) {
    const int64_t at = ((first + patch) * Places<kP>::kSize + band) * p.channels + c;
    x.at[place<kP>(patch, t, h, w)] = origins[patch].used ? cuda::to_float(from[at]) : 0.f;
  });
  transform<kP>(x);
  const float scale = static_cast<float>(p.scale);
  T* to = static_cast<T*>(p.to);
  for_samples<kP>([&](int patch, int t, int h, int w) {
    const Origin origin = origins[patch];
    const int64_t frame = origin.frame + t;
    if (!origin.used || frame < 0) return;
    float value = x.at[place<kP>(patch, t, h, w)];
    if (frame == 0 && p.front == HaarFront::kStartTransposed)
      for (int before = 0; before < kP - 1; ++before) value += x.at[place<kP>(patch, before, h, w)];
    to[origin.sample + (frame * height + h) * width + w] = cuda::from_float<T>(value * scale);
  });
}

template <typename Fn>
void visit(const HaarTransform& p, Fn fn) {
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    if (p.patch == 2) return fn(type, std::integral_constant<int, 2>{});
    fn(type, std::integral_constant<int, 4>{});
  });
}

template <int kP>
unsigned grid(const HaarTransform& p) {
  constexpr int64_t kPatches = Places<kP>::kPatches;
  const int64_t patches = p.batch * p.blocks_t * p.blocks_h * p.blocks_w;
  return cuda::blocks_for((patches + kPatches - 1) / kPatches * p.channels, 1);
}

}  // namespace

void haar_patch_cuda(const HaarTransform& p, void* stream) {
  visit(p, [&](auto* type, auto patch) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kP = decltype(patch)::value;
    cuda::launch(haar_patch_kernel<T, kP>, grid<kP>(p), kThreads, p, stream);
  });
}

void haar_unpatch_cuda(const HaarTransform& p, void* stream) {
  visit(p, [&](auto* type, auto patch) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int kP = decltype(patch)::value;
    cuda::launch(haar_unpatch_kernel<T, kP>, grid<kP>(p), kThreads, p, stream);
  });
}

}  // namespace cosmos::ops
