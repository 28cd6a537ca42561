#pragma once

// Second half of every gradient that is shared by rows: adds the partial sums that a backward
// kernel left, in a fixed order.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// out[s] = sum over c of partial[s * chunks + c], converted to dtype.
struct SegmentReduce {
  DType dtype;
  int64_t segments, chunks, dim;
  const void* partial;  ///< accumulate type
  void* out;            ///< [segments, dim]
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void segment_reduce_cuda(const SegmentReduce& params, void* stream);
#endif

}  // namespace cosmos::ops
