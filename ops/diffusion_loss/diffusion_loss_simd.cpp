// CPU units of diffusion_loss.h.

#include <algorithm>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/diffusion_loss/diffusion_loss_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

struct Segment {
  int64_t clip, frame, begin, count;  ///< frame: of batch * frames
};

Segment segment_of(const LatentShape& s, int64_t unit) {
  const int64_t plane = unit / s.segments, first = unit % s.segments * kDiffusionSegment;
  const int64_t clip = plane / (s.channels * s.frames);
  return {clip, clip * s.frames + plane % s.frames, plane * s.plane + first,
          std::min(kDiffusionSegment, s.plane - first)};
}

/// The mix of one segment, element by element. L: element type of the latents.
template <typename A, typename L>
struct Mixed {
  A p, q;
  const L* x0;
  const L* noise;
  Mixed(const LatentMix& m, const Segment& s)
      : p(static_cast<const A*>(m.x0_scale)[s.frame]),
        q(static_cast<const A*>(m.noise_scale)[s.frame]),
        x0(static_cast<const L*>(m.x0) + s.begin),
        noise(static_cast<const L*>(m.noise) + s.begin) {}
  A operator()(int64_t i) const { return p * A(load(x0[i])) + q * A(load(noise[i])); }
};

template <typename T, typename L>
void input_units(const DiffusionInput& p, int64_t begin, int64_t end) {
  for (int64_t u = begin; u < end; ++u) {
    const Segment s = segment_of(p.shape, u);
    const Mixed<Acc<T>, L> mixed(p.mix, s);
    T* out = static_cast<T*>(p.out) + s.begin;
#pragma omp simd
    for (int64_t i = 0; i < s.count; ++i) store(out[i], mixed(i));
  }
}

template <typename T, typename L>
void loss_units(const DiffusionLoss& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t u = begin; u < end; ++u) {
    const Segment s = segment_of(p.shape, u);
    const A weight = static_cast<const A*>(p.weight)[s.frame];
    A sum = 0;
    if (weight != 0) {
      const Mixed<A, L> target(p.target, s);
      const T* output = static_cast<const T*>(p.output) + s.begin;
      // One stream an array: sum_of's four of three arrays are more than prefetchers follow.
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < s.count; ++i) {
        const A error = load(output[i]) - target(i);
        sum += error * error;
      }
    }
    static_cast<A*>(p.partial)[u] = weight * sum;
  }
}

template <typename T, typename L>
void backward_units(const DiffusionLossBackward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t u = begin; u < end; ++u) {
    const Segment s = segment_of(p.shape, u);
    const A weight = static_cast<const A*>(p.weight)[s.frame];
    const A slope = 2 * weight * static_cast<const A*>(p.grad)[s.clip];
    const Mixed<A, L> target(p.target, s);
    const T* output = static_cast<const T*>(p.output) + s.begin;
    T* grad = static_cast<T*>(p.grad_output) + s.begin;
    if (weight == 0) {
      std::fill_n(grad, s.count, T{});
      continue;
    }
#pragma omp simd
    for (int64_t i = 0; i < s.count; ++i) store(grad[i], slope * (load(output[i]) - target(i)));
  }
}

/// Calls fn with null pointers of the network's and the latents' element type.
template <typename Fn>
void visit_dtypes(const LatentShape& shape, Fn fn) {
  visit_dtype(shape.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    if (shape.wide_latents)
      fn(t, static_cast<Acc<T>*>(nullptr));
    else
      fn(t, t);
  });
}

template <typename P>
using Pointee = std::remove_pointer_t<P>;

}  // namespace

void diffusion_input(const DiffusionInput& p, int64_t begin, int64_t end) {
  visit_dtypes(p.shape, [&](auto* t, auto* l) {
    input_units<Pointee<decltype(t)>, Pointee<decltype(l)>>(p, begin, end);
  });
}

void diffusion_loss_forward(const DiffusionLoss& p, int64_t begin, int64_t end) {
  visit_dtypes(p.shape, [&](auto* t, auto* l) {
    loss_units<Pointee<decltype(t)>, Pointee<decltype(l)>>(p, begin, end);
  });
}

void diffusion_loss_backward(const DiffusionLossBackward& p, int64_t begin, int64_t end) {
  visit_dtypes(p.shape, [&](auto* t, auto* l) {
    backward_units<Pointee<decltype(t)>, Pointee<decltype(l)>>(p, begin, end);
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
