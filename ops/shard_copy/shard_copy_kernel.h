#pragma once

// What the kernels of shard_copy.h are given. The four copies are one: chunks of a tensor between a
// place where they follow each other without a gap and a flat buffer where the ranks' rows lie
// between them.

#include <cstdint>

#include "ops/core/dtype.h"
#include "ops/core/host_device.h"

namespace cosmos::ops {

/// Elements of one unit of work: units never span two chunks.
inline constexpr int64_t kCopyUnit = 1 << 15;

/// For every rank r and i < chunk: to[r * to_stride + i] = from[r * from_stride + i] while
/// r * chunk + i < size; after that padding, which is zeroed or left alone.
struct ChunkCopyTensor {
  DType from_type, to_type;
  const void* from;
  void* to;
  int64_t chunk, size;
  int64_t from_stride, to_stride;  ///< elements
  int64_t first_unit;              ///< among the units of all tensors
};

struct ChunkCopy {
  const ChunkCopyTensor* tensors;  ///< none of them with chunk 0
  int64_t tensor_count, unit_count;
  double scale;
  bool accumulate;  ///< add to what is there
  bool zero_padding;
};

/// What one unit is: `copied` elements from `from` on, then zeros up to `count`.
struct ChunkCopyUnit {
  int64_t from, to;  ///< first elements
  int64_t count, copied;
};

COSMOS_HOST_DEVICE inline ChunkCopyUnit chunk_copy_unit(const ChunkCopyTensor& t, int64_t unit) {
  const int64_t units = (t.chunk + kCopyUnit - 1) / kCopyUnit, local = unit - t.first_unit;
  const int64_t rank = local / units, begin = local % units * kCopyUnit;
  const int64_t count = t.chunk - begin < kCopyUnit ? t.chunk - begin : kCopyUnit;
  const int64_t left = t.size - rank * t.chunk - begin;
  return {rank * t.from_stride + begin, rank * t.to_stride + begin, count,
          left < 0 ? 0 : (left < count ? left : count)};
}

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
/// `tensors` is a host pointer.
void chunk_copy_cuda(const ChunkCopy& params, void* stream);
#endif

}  // namespace cosmos::ops
