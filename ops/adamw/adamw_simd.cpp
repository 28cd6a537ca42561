// CPU units of adamw.h.

#include <algorithm>

#include "ops/adamw/adamw_kernel.h"
#include "ops/adamw/moment_codes.h"
#include "ops/core/simd.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

/// What is the same for all elements of a tensor.
template <typename A>
struct Numbers {
  A step_size, correction, clip, decay, rest1, beta2, rest2, eps, ema_rate;

  Numbers(const AdamWStep& p, const AdamWTensor& t, double clip_by)
      : step_size(p.lr / (1 - std::pow(p.beta1, double(*t.step)))),
        correction(std::sqrt(1 - std::pow(p.beta2, double(*t.step)))),
        clip(clip_by),
        decay(p.decay),
        rest1(1 - p.beta1),
        beta2(p.beta2),
        rest2(1 - p.beta2),
        eps(p.eps),
        ema_rate(1 - p.ema_decay) {}
};

/// Elements [begin, begin + count), whose moments are m and v.
template <typename T, typename G, bool kMaster, bool kEma>
void update(const Numbers<Acc<T>>& n, const AdamWTensor& t, int64_t begin, int64_t count, Acc<T>* m,
            Acc<T>* v) {
  using A = Acc<T>;
  T* param = static_cast<T*>(t.param) + begin;
  const G* grad = static_cast<const G*>(t.grad) + begin;
  A* master = kMaster ? static_cast<A*>(t.master) + begin : nullptr;
  A* ema = kEma ? static_cast<A*>(t.ema) + begin : nullptr;
  const Numbers<A> k = n;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A g = load(grad[i]) * k.clip;
    const A first = m[i] + (g - m[i]) * k.rest1;
    const A second = v[i] * k.beta2 + g * g * k.rest2;
    A w = kMaster ? master[i] : A(load(param[i]));
    w = w * k.decay - k.step_size * first / (std::sqrt(second) / k.correction + k.eps);
    m[i] = first;
    v[i] = second;
    if constexpr (kMaster) master[i] = w;
    if constexpr (kEma) ema[i] += (w - ema[i]) * k.ema_rate;
    store(param[i], w);
  }
}

/// Largest magnitude of a block, zeros at its end; as 64 maxima side by side.
float largest(const float* x) {
  constexpr int64_t kSide = 64;
  float best[kSide] = {};
  for (int64_t i = 0; i < kMomentBlock; i += kSide) {
#pragma omp simd
    for (int64_t j = 0; j < kSide; ++j) {
      const float magnitude = std::fabs(x[i + j]);
      best[j] = magnitude > best[j] ? magnitude : best[j];
    }
  }
  return *std::max_element(best, best + kSide);
}

void decode(int64_t count, const int8_t* m_codes, float m_scale, const uint8_t* v_codes,
            float v_scale, float* m, float* v) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    m[i] = decode_first(m_codes[i], m_scale);
    v[i] = decode_second(v_codes[i], v_scale);
  }
}

void encode(int64_t count, const float* m, float m_inverse, const float* v, float v_inverse,
            uint32_t element, uint32_t step, int8_t* m_codes, uint8_t* v_codes) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float chance = moment_chance(element + static_cast<uint32_t>(i), step);
    m_codes[i] = encode_first(m[i], m_inverse, chance);
    v_codes[i] = encode_second(v[i], v_inverse, chance);
  }
}

/// The same in blocks whose moments are codes.
template <typename T, typename G, bool kMaster, bool kEma>
void update_coded(const Numbers<float>& n, const AdamWTensor& t, int64_t begin, int64_t count) {
  const auto step = static_cast<uint32_t>(*t.step);
  for (int64_t first = begin; first < begin + count; first += kMomentBlock) {
    const int64_t size = std::min(kMomentBlock, begin + count - first);
    auto* m_codes = static_cast<int8_t*>(t.exp_avg) + first;
    auto* v_codes = static_cast<uint8_t*>(t.exp_avg_sq) + first;
    float* m_scale = t.exp_avg_scale + first / kMomentBlock;
    float* v_scale = t.exp_avg_sq_scale + first / kMomentBlock;
    float m[kMomentBlock] = {}, v[kMomentBlock] = {};
    decode(size, m_codes, *m_scale, v_codes, *v_scale, m, v);
    update<T, G, kMaster, kEma>(n, t, first, size, m, v);
    *m_scale = largest(m);
    *v_scale = largest(v);
    encode(size, m, inverse_scale(*m_scale), v, inverse_scale(*v_scale),
           static_cast<uint32_t>(first), step, m_codes, v_codes);
  }
}

template <typename T, typename G, bool kMaster, bool kEma>
void update_unit(const AdamWStep& p, const AdamWTensor& t, int64_t begin, double clip) {
  using A = Acc<T>;
  const int64_t count = std::min(kUnitElements, t.size - begin);
  const Numbers<A> numbers(p, t, clip);
  if constexpr (std::is_same_v<A, float>) {
    if (t.exp_avg_scale) return update_coded<T, G, kMaster, kEma>(numbers, t, begin, count);
  }
  update<T, G, kMaster, kEma>(numbers, t, begin, count, static_cast<A*>(t.exp_avg) + begin,
                              static_cast<A*>(t.exp_avg_sq) + begin);
}

template <typename T, typename G>
void choose_unit(const AdamWStep& p, const AdamWTensor& t, int64_t begin, double clip) {
  if (t.master)
    t.ema ? update_unit<T, G, true, true>(p, t, begin, clip)
          : update_unit<T, G, true, false>(p, t, begin, clip);
  else
    t.ema ? update_unit<T, G, false, true>(p, t, begin, clip)
          : update_unit<T, G, false, false>(p, t, begin, clip);
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
      t.wide_grad ? choose_unit<T, Acc<T>>(p, t, p.units[u].begin, clip)
                  : choose_unit<T, T>(p, t, p.units[u].begin, clip);
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
