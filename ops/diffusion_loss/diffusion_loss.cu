// CUDA units of diffusion_loss.h: a block takes one segment of a plane, each thread every 256th
// group of four elements (16 bytes of float32). A block's share of the loss is one float, added up
// by segment_reduce: no atomics. Bytes as in diffusion_loss.h.

#include <type_traits>

#include "ops/core/cuda.cuh"
#include "ops/diffusion_loss/diffusion_loss_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 256, kWide = 4;

struct Segment {
  int64_t clip, frame, begin;
  int count;
};

__device__ inline Segment segment_of(const LatentShape& s) {
  const int64_t unit = blockIdx.x;
  const int64_t plane = unit / s.segments, first = unit % s.segments * kDiffusionSegment;
  const int64_t left = s.plane - first, clip = plane / (s.channels * s.frames);
  return {clip, clip * s.frames + plane % s.frames, plane * s.plane + first,
          static_cast<int>(left < kDiffusionSegment ? left : kDiffusionSegment)};
}

__device__ inline float number(const void* values, int64_t i) {
  return static_cast<const float*>(values)[i];
}

/// kVec elements of the mix, from element i of the segment on.
template <typename L, int kVec>
__device__ inline void mix(const LatentMix& m, const Segment& s, int i, float (&out)[kVec]) {
  const float p = number(m.x0_scale, s.frame), q = number(m.noise_scale, s.frame);
  float noise[kVec];
  cuda::load(static_cast<const L*>(m.x0) + s.begin + i, out);
  cuda::load(static_cast<const L*>(m.noise) + s.begin + i, noise);
#pragma unroll
  for (int k = 0; k < kVec; ++k) out[k] = p * out[k] + q * noise[k];
}

template <typename T, typename L, int kVec>
__global__ void __launch_bounds__(kThreads) input_kernel(DiffusionInput p) {
  const Segment s = segment_of(p.shape);
  for (int i = threadIdx.x * kVec; i < s.count; i += kThreads * kVec) {
    float out[kVec];
    mix<L>(p.mix, s, i, out);
    cuda::store(static_cast<T*>(p.out) + s.begin + i, out);
  }
}

template <typename T, typename L, int kVec>
__global__ void __launch_bounds__(kThreads) loss_kernel(DiffusionLoss p) {
  __shared__ float scratch[cuda::kWarp];
  const Segment s = segment_of(p.shape);
  const float weight = number(p.weight, s.frame);
  float sum = 0;
  for (int i = threadIdx.x * kVec; weight != 0 && i < s.count; i += kThreads * kVec) {
    float output[kVec], target[kVec];
    cuda::load(static_cast<const T*>(p.output) + s.begin + i, output);
    mix<L>(p.target, s, i, target);
#pragma unroll
    for (int k = 0; k < kVec; ++k) sum += (output[k] - target[k]) * (output[k] - target[k]);
  }
  sum = cuda::block_sum(sum, scratch);
  if (threadIdx.x == 0) static_cast<float*>(p.partial)[blockIdx.x] = weight * sum;
}

template <typename T, typename L, int kVec>
__global__ void __launch_bounds__(kThreads) loss_backward_kernel(DiffusionLossBackward p) {
  const Segment s = segment_of(p.shape);
  const float weight = number(p.weight, s.frame), slope = 2 * weight * number(p.grad, s.clip);
  for (int i = threadIdx.x * kVec; i < s.count; i += kThreads * kVec) {
    float output[kVec] = {}, target[kVec] = {};
    if (weight != 0) {
      cuda::load(static_cast<const T*>(p.output) + s.begin + i, output);
      mix<L>(p.target, s, i, target);
#pragma unroll
      for (int k = 0; k < kVec; ++k) output[k] = slope * (output[k] - target[k]);
    }
    cuda::store(static_cast<T*>(p.grad_output) + s.begin + i, output);
  }
}

template <typename P>
using Pointee = std::remove_pointer_t<P>;

/// Calls fn with null pointers of the network's and the latents' element type and the vector width:
/// kWide where every plane starts aligned.
template <typename Fn>
void visit_layout(const LatentShape& shape, const LatentMix& mix, const void* network, Fn fn) {
  const bool wide = shape.plane % kWide == 0 && cuda::aligned(mix.x0) && cuda::aligned(mix.noise) &&
                    cuda::aligned(network);
  cuda::visit_dtype(shape.dtype, [&](auto* t) {
    const auto visit = [&](auto* l) {
      if (wide)
        fn(t, l, std::integral_constant<int, kWide>{});
      else
        fn(t, l, std::integral_constant<int, 1>{});
    };
    if (shape.wide_latents)
      visit(static_cast<float*>(nullptr));
    else
      visit(t);
  });
}

}  // namespace

void diffusion_input_cuda(const DiffusionInput& p, void* stream) {
  visit_layout(p.shape, p.mix, p.out, [&](auto* t, auto* l, auto vec) {
    cuda::launch(input_kernel<Pointee<decltype(t)>, Pointee<decltype(l)>, decltype(vec)::value>,
                 cuda::blocks_for(p.shape.units(), 1), kThreads, p, stream);
  });
}

void diffusion_loss_forward_cuda(const DiffusionLoss& p, void* stream) {
  visit_layout(p.shape, p.target, p.output, [&](auto* t, auto* l, auto vec) {
    cuda::launch(loss_kernel<Pointee<decltype(t)>, Pointee<decltype(l)>, decltype(vec)::value>,
                 cuda::blocks_for(p.shape.units(), 1), kThreads, p, stream);
  });
}

void diffusion_loss_backward_cuda(const DiffusionLossBackward& p, void* stream) {
  visit_layout(p.shape, p.target, p.output, [&](auto* t, auto* l, auto vec) {
    cuda::launch(
        loss_backward_kernel<Pointee<decltype(t)>, Pointee<decltype(l)>, decltype(vec)::value>,
        cuda::blocks_for(p.shape.units(), 1), kThreads, p, stream);
  });
}

}  // namespace cosmos::ops
