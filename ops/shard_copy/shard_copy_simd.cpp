// CPU units of shard_copy.h.

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/shard_copy/shard_copy_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename From, typename To>
void copy_run(const From* from, To* to, int64_t n, double factor, bool accumulate) {
  // float32 unless one side is float64.
  using Wide = std::conditional_t<std::is_same_v<From, double>, double, Acc<To>>;
  const Wide scale = factor;
  if (accumulate) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i)
      store(to[i], static_cast<Acc<To>>(Wide(load(to[i])) + Wide(load(from[i])) * scale));
  } else if (factor != 1) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(to[i], static_cast<Acc<To>>(Wide(load(from[i])) * scale));
  } else if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(To));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(to[i], static_cast<Acc<To>>(load(from[i])));
  }
}

void copy_unit(const ChunkCopy& p, const ChunkCopyTensor& t, int64_t index) {
  const ChunkCopyUnit unit = chunk_copy_unit(t, index);
  visit_dtype(t.to_type, [&](auto* to_type) {
    using To = std::remove_pointer_t<decltype(to_type)>;
    To* to = static_cast<To*>(t.to) + unit.to;
    if (unit.copied > 0)
      visit_dtype(t.from_type, [&](auto* from_type) {
        using From = std::remove_pointer_t<decltype(from_type)>;
        copy_run(static_cast<const From*>(t.from) + unit.from, to, unit.copied, p.scale,
                 p.accumulate);
      });
    if (p.zero_padding && unit.copied < unit.count)
      std::memset(to + unit.copied, 0,
                  static_cast<std::size_t>(unit.count - unit.copied) *
                      sizeof(To));  // all bits zero: 0 in every dtype
  });
}

}  // namespace

void chunk_copy(const ChunkCopy& p, int64_t begin, int64_t end) {
  const ChunkCopyTensor* last = p.tensors + p.tensor_count;
  const ChunkCopyTensor* t =
      std::upper_bound(p.tensors, last, begin,
                       [](int64_t unit, const ChunkCopyTensor& x) { return unit < x.first_unit; }) -
      1;
  for (int64_t unit = begin; unit < end; ++unit) {
    if (t + 1 < last && t[1].first_unit == unit) ++t;
    copy_unit(p, *t, unit);
  }
}

}  // namespace cosmos::ops::COSMOS_ISA
