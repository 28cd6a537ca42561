// CUDA units of shard_copy.h: one block a unit, the tensors as kernel arguments (no table to copy,
// no synchronisation); a block finds its tensor by bisection. 16 bytes of the wider type at a time
// where both sides are aligned (sizes that are multiples of 8 keep a flat buffer so), else element
// by element.

#include <type_traits>

#include "ops/core/cuda.cuh"
#include "ops/shard_copy/shard_copy_kernel.h"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 512;
constexpr int kTensors = 60;  // within the 4 KiB of kernel arguments

struct Batch {
  float scale;
  bool accumulate, zero_padding;
  int count;
  int64_t first_unit;
  ChunkCopyTensor tensors[kTensors];
};
static_assert(sizeof(Batch) <= 4096);

template <typename From, typename To>
__device__ void copy_unit(const Batch& batch, const ChunkCopyTensor& t, const ChunkCopyUnit& unit) {
  const From* from = static_cast<const From*>(t.from) + unit.from;
  To* to = static_cast<To*>(t.to) + unit.to;
  constexpr int kVec = 16 / (sizeof(From) > sizeof(To) ? sizeof(From) : sizeof(To));
  const bool wide = reinterpret_cast<uintptr_t>(from) % (kVec * sizeof(From)) == 0 &&
                    reinterpret_cast<uintptr_t>(to) % (kVec * sizeof(To)) == 0;
  const int64_t vectors = wide ? unit.copied / kVec : 0;
  for (int64_t v = threadIdx.x; v < vectors; v += kThreads) {
    float value[kVec], old[kVec];
    cuda::load(from + v * kVec, value);
    if (batch.accumulate) cuda::load(to + v * kVec, old);
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      value[k] *= batch.scale;
      if (batch.accumulate) value[k] += old[k];
    }
    cuda::store(to + v * kVec, value);
  }
  for (int64_t i = vectors * kVec + threadIdx.x; i < unit.copied; i += kThreads) {
    const float value = cuda::to_float(from[i]) * batch.scale;
    to[i] = cuda::from_float<To>(batch.accumulate ? cuda::to_float(to[i]) + value : value);
  }
  if (!batch.zero_padding) return;
  for (int64_t i = unit.copied + threadIdx.x; i < unit.count; i += kThreads)
    to[i] = cuda::from_float<To>(0.f);
}

template <typename Fn>
__device__ void visit_device_dtype(DType dtype, Fn fn) {
  if (dtype == DType::kFloat32) fn(static_cast<float*>(nullptr));
  if (dtype == DType::kBFloat16) fn(static_cast<__nv_bfloat16*>(nullptr));
  if (dtype == DType::kFloat16) fn(static_cast<__half*>(nullptr));
}

__global__ void __launch_bounds__(kThreads) chunk_copy_kernel(Batch batch) {
  const int64_t index = batch.first_unit + blockIdx.x;
  int low = 0, high = batch.count;  // the last tensor whose first unit is not after ours
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (batch.tensors[middle].first_unit <= index ? low : high) = middle;
  }
  const ChunkCopyTensor& t = batch.tensors[low];
  const ChunkCopyUnit unit = chunk_copy_unit(t, index);
  visit_device_dtype(t.from_type, [&](auto* from) {
    visit_device_dtype(t.to_type, [&](auto* to) {
      copy_unit<std::remove_pointer_t<decltype(from)>, std::remove_pointer_t<decltype(to)>>(
          batch, t, unit);
    });
  });
}

}  // namespace

void chunk_copy_cuda(const ChunkCopy& p, void* stream) {
  for (int64_t first = 0; first < p.tensor_count; first += kTensors) {
    const int64_t next = first + kTensors < p.tensor_count ? first + kTensors : p.tensor_count;
    Batch batch{static_cast<float>(p.scale),
                p.accumulate,
                p.zero_padding,
                static_cast<int>(next - first),
                p.tensors[first].first_unit,
                {}};
    for (int64_t i = first; i < next; ++i) batch.tensors[i - first] = p.tensors[i];
    const int64_t end = next < p.tensor_count ? p.tensors[next].first_unit : p.unit_count;
    cuda::launch(chunk_copy_kernel, dim3(cuda::blocks_for(end - batch.first_unit, 1)), kThreads,
                 batch, stream);
  }
}

}  // namespace cosmos::ops
