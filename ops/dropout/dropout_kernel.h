#pragma once

// What the kernels of dropout.h are given: one sample, or a rank's slice of it.

#include <cstdint>

#include "ops/core/dtype.h"
#include "ops/core/host_device.h"

namespace cosmos::ops {

/// Elements that share 64 Philox blocks: the first half takes the low bits of the 256 words in
/// order, the second half the high ones, so that both are neighbours in memory.
inline constexpr int64_t kDropoutUnit = 512;

/// The elements of x as runs that are neighbours in the whole sample, too: `count` of `length`
/// elements; run r begins at element begin(r) of the whole.
struct DropoutRuns {
  int64_t count, length;
  int64_t first, group, far, near;
  int64_t units;  ///< of the whole that a run may touch

  COSMOS_HOST_DEVICE int64_t begin(int64_t r) const {
    return first + r / group * far + r % group * near;
  }
};

/// Either half may be missing (null): one draw serves an input and a gradient.
struct Dropout {
  DType dtype;
  DropoutRuns runs;    ///< of x's elements
  uint64_t seed;       ///< of the sample
  uint32_t threshold;  ///< kept where the 16 bits are not below it
  double scale;        ///< of what is kept
  const void* x;
  void* out;  ///< out = keep ? scale * x : 0
  const void* update;
  void* sum;  ///< sum += keep ? scale * update : 0
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void dropout_cuda(const Dropout& params, void* stream);
#endif

}  // namespace cosmos::ops
