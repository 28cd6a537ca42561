// CUDA units of dropout.h: a thread draws one Philox block and serves the two runs of four
// neighbouring elements that use it, as vectors where the pointers allow. Bytes as in dropout.h.

#include "ops/core/cuda.cuh"
#include "ops/core/philox.h"
#include "ops/dropout/dropout_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 4;                               // elements that take the words of one block
constexpr int64_t kBlocks = kDropoutUnit / 2 / kRun;  // Philox blocks of a unit

/// Elements [first, first + kVec), kept where `bits` allow.
template <typename T, int kVec>
__device__ inline void drop(const Dropout& p, int64_t first, const uint32_t* bits) {
  const float scale = static_cast<float>(p.scale);
  if (p.out) {
    float x[kVec];
    cuda::load(static_cast<const T*>(p.x) + first, x);
    for (int k = 0; k < kVec; ++k) x[k] = bits[k] >= p.threshold ? x[k] * scale : 0.f;
    cuda::store(static_cast<T*>(p.out) + first, x);
  }
  if (p.sum) {
    float sum[kVec], update[kVec];
    cuda::load(static_cast<const T*>(p.sum) + first, sum);
    cuda::load(static_cast<const T*>(p.update) + first, update);
    for (int k = 0; k < kVec; ++k) sum[k] += bits[k] >= p.threshold ? update[k] * scale : 0.f;
    cuda::store(static_cast<T*>(p.sum) + first, sum);
  }
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads) dropout_kernel(Dropout p) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t item = index / kBlocks, run = item / p.runs.units;
  if (run >= p.runs.count) return;
  const int64_t begin = p.runs.begin(run), end = begin + p.runs.length;
  const int64_t unit = begin / kDropoutUnit + item % p.runs.units;
  const int64_t to_x = run * p.runs.length - begin;  // from a place to an element of x
  const int64_t block = unit * kBlocks + index % kBlocks;
  const PhiloxBlock random =
      philox(p.seed, static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0);
  for (int half = 0; half < 2; ++half) {
    const int64_t first = unit * kDropoutUnit + half * (kDropoutUnit / 2) + block % kBlocks * kRun;
    uint32_t bits[kRun];
    for (int k = 0; k < kRun; ++k) bits[k] = random.word[k] >> (16 * half) & 0xffffu;
    if (kWide && first >= begin && first + kRun <= end)
      drop<T, kRun>(p, first + to_x, bits);
    else
      for (int k = 0; k < kRun; ++k)
        if (first + k >= begin && first + k < end) drop<T, 1>(p, first + k + to_x, bits + k);
  }
}

}  // namespace

void dropout_cuda(const Dropout& p, void* stream) {
  const DropoutRuns& r = p.runs;
  const unsigned grid = cuda::blocks_for(r.count * r.units * kBlocks, kThreads);
  // Groups of four places are groups of four elements, whatever the run.
  const bool even = r.first % kRun == 0 && r.far % kRun == 0 && r.near % kRun == 0 &&
                    (r.count == 1 || r.length % kRun == 0);
  const bool wide = even && cuda::aligned(p.x) && cuda::aligned(p.out) && cuda::aligned(p.update) &&
                    cuda::aligned(p.sum);  // null is
  cuda::visit_dtype(p.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    cuda::launch(wide ? dropout_kernel<T, true> : dropout_kernel<T, false>, grid, kThreads, p,
                 stream);
  });
}

}  // namespace cosmos::ops
