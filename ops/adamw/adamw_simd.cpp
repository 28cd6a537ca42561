// CPU units of adamw.h.

#include <algorithm>

#include "ops/adamw/adamw_kernel.h"
#include "ops/core/simd.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename T, typename G, bool kMaster, bool kEma>
void update(const AdamWStep& p, const AdamWTensor& t, int64_t begin, int64_t count, double clip) {
  using A = Acc<T>;
  T* param = static_cast<T*>(t.param) + begin;
  const G* grad = static_cast<const G*>(t.grad) + begin;
  A* m = static_cast<A*>(t.exp_avg) + begin;
  A* v = static_cast<A*>(t.exp_avg_sq) + begin;
  A* master = kMaster ? static_cast<A*>(t.master) + begin : nullptr;
  A* ema = kEma ? static_cast<A*>(t.ema) + begin : nullptr;
  const A step_size = p.lr / (1 - std::pow(p.beta1, double(*t.step)));
  const A correction = std::sqrt(1 - std::pow(p.beta2, double(*t.step)));
  const A c = clip, decay = p.decay;
  const A one_minus_beta1 = 1 - p.beta1, beta2 = p.beta2, one_minus_beta2 = 1 - p.beta2;
  const A eps = p.eps, ema_rate = 1 - p.ema_decay;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A g = load(grad[i]) * c;
    const A first = m[i] + (g - m[i]) * one_minus_beta1;
    const A second = v[i] * beta2 + g * g * one_minus_beta2;
    A w = kMaster ? master[i] : A(load(param[i]));
    w = w * decay - step_size * first / (std::sqrt(second) / correction + eps);
    m[i] = first;
    v[i] = second;
    if constexpr (kMaster) master[i] = w;
    if constexpr (kEma) ema[i] += (w - ema[i]) * ema_rate;
    store(param[i], w);
  }
}

template <typename T, typename G>
void update_unit(const AdamWStep& p, const AdamWTensor& t, int64_t begin, double clip) {
  const int64_t count = std::min(kUnitElements, t.size - begin);
  if (t.master)
    t.ema ? update<T, G, true, true>(p, t, begin, count, clip)
          : update<T, G, true, false>(p, t, begin, count, clip);
  else
    t.ema ? update<T, G, false, true>(p, t, begin, count, clip)
          : update<T, G, false, false>(p, t, begin, count, clip);
}

}  // namespace

void adamw_step(const AdamWStep& p, int64_t begin, int64_t end) {
  double clip = 1;
  if (p.clip)
    clip =
        p.clip_is_double ? *static_cast<const double*>(p.clip) : *static_cast<const float*>(p.clip);
  if (!std::isfinite(clip)) return;
  for (int64_t u = begin; u < end; ++u) {
    const AdamWTensor& t = p.tensors[p.units[u].tensor];
    visit_dtype(t.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      t.wide_grad ? update_unit<T, Acc<T>>(p, t, p.units[u].begin, clip)
                  : update_unit<T, T>(p, t, p.units[u].begin, clip);
    });
  }
}

void square_sums(const SquareSums& p, int64_t begin, int64_t end) {
  for (int64_t u = begin; u < end; ++u) {
    const NormTensor& t = p.tensors[p.units[u].tensor];
    const int64_t first = p.units[u].begin, count = std::min(kUnitElements, t.size - first);
    visit_dtype(t.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* x = static_cast<const T*>(t.data) + first;
      // Runs of 1024 in the accumulate type, runs added in float64.
      double total = 0;
      for (int64_t i = 0; i < count; i += 1024) {
        const T* run = x + i;
        total += sum_of<Acc<T>>(std::min<int64_t>(1024, count - i), [=](int64_t k) {
          const Acc<T> value = load(run[k]);
          return value * value;
        });
      }
      p.partial[u] = total;
    });
  }
}

}  // namespace cosmos::ops::COSMOS_ISA
