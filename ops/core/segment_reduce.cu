// out[s] = sum of the chunks' partial rows. Bytes: one read of the partials. A block takes 32
// columns of one segment; its 16 rows of threads each add every 16th chunk, then row 0 adds the 16
// sums in order: the same bits on every run.

#include "ops/core/cuda.cuh"
#include "ops/core/segment_reduce_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kColumns = 32, kRows = 16;

template <typename T>
__global__ void segment_reduce_kernel(SegmentReduce p) {
  __shared__ float sums[kRows][kColumns];
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
  const int64_t blocks_per_segment = (p.dim + kColumns - 1) / kColumns;
  const int64_t segment = blockIdx.x / blocks_per_segment;
  const int64_t i = blockIdx.x % blocks_per_segment * kColumns + column;
  const float* partial = static_cast<const float*>(p.partial) + segment * p.chunks * p.dim + i;
  float sum = 0;
  if (i < p.dim)
    for (int64_t c = row; c < p.chunks; c += kRows) sum += partial[c * p.dim];
  sums[row][column] = sum;
  __syncthreads();
  if (row != 0 || i >= p.dim) return;
  float total = 0;
  for (int r = 0; r < kRows; ++r) total += sums[r][column];
  static_cast<T*>(p.out)[segment * p.dim + i] = cuda::from_float<T>(total);
}

}  // namespace

void segment_reduce_cuda(const SegmentReduce& p, void* stream) {
  const int64_t blocks = p.segments * ((p.dim + kColumns - 1) / kColumns);
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(segment_reduce_kernel<T>, cuda::blocks_for(blocks, 1), kColumns * kRows, p,
                 stream);
  });
}

}  // namespace cosmos::ops
