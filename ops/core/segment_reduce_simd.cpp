// CPU segments of segment_reduce_kernel.h.

#include <algorithm>

#include "ops/core/segment_reduce_kernel.h"
#include "ops/core/simd.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename T>
void reduce_segments(const SegmentReduce& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  constexpr int64_t kBlock =
      256;  // columns summed at a time, so that the sums stay in registers or L1
  for (int64_t s = begin; s < end; ++s) {
    const A* partial = static_cast<const A*>(p.partial) + s * p.chunks * p.dim;
    T* out = static_cast<T*>(p.out) + s * p.dim;
    for (int64_t first = 0; first < p.dim; first += kBlock) {
      const int64_t count = std::min(kBlock, p.dim - first);
      A sums[kBlock] = {};
      for (int64_t c = 0; c < p.chunks; ++c) {
        const A* from = partial + c * p.dim + first;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) sums[i] += from[i];
      }
      for (int64_t i = 0; i < count; ++i) store(out[first + i], sums[i]);
    }
  }
}

}  // namespace

void segment_reduce(const SegmentReduce& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype,
              [&](auto* t) { reduce_segments<std::remove_pointer_t<decltype(t)>>(p, begin, end); });
}

}  // namespace cosmos::ops::COSMOS_ISA
