// CPU rows of rms_norm.h. Forward takes tokens [begin, end) of batch * length, backward takes
// chunks of tokens, so that every partial weight gradient has one writer.

#include <algorithm>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/rms_norm/rms_norm_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

/// Element type, rotation, and the row length where the compiler knows it (whole heads of 64 and
/// 128), or 0 to take it at run time.
template <typename ElementType, Rotation kRotationValue, int64_t kDimValue>
struct Kind {
  using T = ElementType;
  using A = Acc<T>;
  static constexpr Rotation kRotation = kRotationValue;
  static constexpr int64_t kDim = kDimValue;

  static int64_t dim(const HeadShape& shape) { return kDim > 0 ? kDim : shape.dim; }
  static int64_t pairs(const HeadShape& shape) {
    if constexpr (kRotation == Rotation::kNone) return 0;
    return kDim > 0 ? kDim / 2 : shape.pairs;
  }
  /// Where the two numbers of pair i are.
  static int64_t first(int64_t i) { return kRotation == Rotation::kInterleaved ? 2 * i : i; }
  static int64_t second(int64_t i, int64_t pairs) {
    return kRotation == Rotation::kInterleaved ? 2 * i + 1 : i + pairs;
  }
};

template <typename T>
const T* head(const HeadView& view, const HeadShape& shape, int64_t token, int64_t head) {
  return static_cast<const T*>(view.data) + token / shape.length * view.batch_stride +
         token % shape.length * view.token_stride + head * view.head_stride;
}

template <typename A>
const A* table_row(const void* table, const HeadShape& shape, int64_t token) {
  if (shape.rotation == Rotation::kNone) return nullptr;
  return static_cast<const A*>(table) + token / shape.length * shape.table_batch_stride +
         token % shape.length * shape.pairs;
}

template <typename T>
Acc<T> inverse_rms(const T* x, int64_t dim, double eps) {
  using A = Acc<T>;
  const A square = sum_of<A>(dim, [=](int64_t i) {
    const A value = load(x[i]);
    return value * value;
  });
  return A(1) / std::sqrt(square / A(dim) + A(eps));
}

template <typename K>
void forward_tokens(const RmsNormForward& p, int64_t begin, int64_t end) {
  using T = typename K::T;
  using A = typename K::A;
  const int64_t dim = K::dim(p.shape), pairs = K::pairs(p.shape);
  const A* weight = static_cast<const A*>(p.weight);
  for (int64_t t = begin; t < end; ++t) {
    const A* cos = table_row<A>(p.cos, p.shape, t);
    const A* sin = table_row<A>(p.sin, p.shape, t);
    for (int64_t h = 0; h < p.shape.heads; ++h) {
      const T* x = head<T>(p.x, p.shape, t, h);
      T* out = static_cast<T*>(p.out) + (t * p.shape.heads + h) * dim;
      const A r = p.norm ? inverse_rms(x, dim, p.eps) : A(1);
#pragma omp simd
      for (int64_t i = 0; i < pairs; ++i) {
        const int64_t first = K::first(i), second = K::second(i, pairs);
        const A a = load(x[first]) * r * weight[first];
        const A b = load(x[second]) * r * weight[second];
        store(out[first], a * cos[i] - b * sin[i]);
        store(out[second], b * cos[i] + a * sin[i]);
      }
#pragma omp simd
      for (int64_t i = 2 * pairs; i < dim; ++i) store(out[i], load(x[i]) * r * weight[i]);
    }
  }
}

/// grad_x = r * h - x * r³ * mean(h * x), where h = weight * (gradient of the normed row, rotated
/// back) and r = 1 / rms.
template <typename K>
void backward_row(const typename K::T* grad, const typename K::T* x, const typename K::A* weight,
                  const typename K::A* cos, const typename K::A* sin, int64_t dim, int64_t pairs,
                  double eps, typename K::T* grad_x, typename K::A* weight_sum) {
  using A = typename K::A;
  struct Pair {
    A a, b;
  };
  const A r = inverse_rms(x, dim, eps);
  const auto rotated_back = [=](int64_t i) -> Pair {
    const A a = load(grad[K::first(i)]), b = load(grad[K::second(i, pairs)]);
    return {a * cos[i] + b * sin[i], b * cos[i] - a * sin[i]};
  };
  const auto sums = [=](auto with_weight) {
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t first = K::first(i), second = K::second(i, pairs);
      const Pair g = rotated_back(i);
      const A a = load(x[first]), b = load(x[second]);
      dot += g.a * weight[first] * a + g.b * weight[second] * b;
      if constexpr (with_weight) {
        weight_sum[first] += g.a * a * r;
        weight_sum[second] += g.b * b * r;
      }
    }
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 2 * pairs; i < dim; ++i) {
      const A g = load(grad[i]), value = load(x[i]);
      dot += g * weight[i] * value;
      if constexpr (with_weight) weight_sum[i] += g * value * r;
    }
    return dot;
  };
  const A dot = weight_sum ? sums(std::true_type{}) : sums(std::false_type{});
  const A pull = r * r * r * dot / A(dim);
#pragma omp simd
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t first = K::first(i), second = K::second(i, pairs);
    const Pair g = rotated_back(i);
    store(grad_x[first], r * g.a * weight[first] - load(x[first]) * pull);
    store(grad_x[second], r * g.b * weight[second] - load(x[second]) * pull);
  }
#pragma omp simd
  for (int64_t i = 2 * pairs; i < dim; ++i)
    store(grad_x[i], r * load(grad[i]) * weight[i] - load(x[i]) * pull);
}

template <typename K>
void backward_chunks(const RmsNormBackward& p, int64_t begin, int64_t end) {
  using T = typename K::T;
  using A = typename K::A;
  const int64_t dim = K::dim(p.shape), pairs = K::pairs(p.shape);
  const int64_t tokens = p.shape.batch * p.shape.length;
  for (int64_t c = begin; c < end; ++c) {
    A* weight_sum = static_cast<A*>(p.weight_partial);
    if (weight_sum) {
      weight_sum += c * dim;
      std::fill_n(weight_sum, dim, A(0));
    }
    const int64_t first = c * p.shape.chunk_tokens;
    const int64_t last = std::min(tokens, first + p.shape.chunk_tokens);
    for (int64_t t = first; t < last; ++t) {
      const A* cos = table_row<A>(p.cos, p.shape, t);
      const A* sin = table_row<A>(p.sin, p.shape, t);
      for (int64_t h = 0; h < p.shape.heads; ++h)
        backward_row<K>(head<T>(p.grad, p.shape, t, h), head<T>(p.x, p.shape, t, h),
                        static_cast<const A*>(p.weight), cos, sin, dim, pairs, p.eps,
                        static_cast<T*>(p.grad_x) + (t * p.shape.heads + h) * dim, weight_sum);
    }
  }
}

/// Calls fn with the Kind of these heads.
template <typename Fn>
void visit_kind(const HeadShape& shape, Fn fn) {
  visit_dtype(shape.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto with_dim = [&](auto rotation) {
      constexpr Rotation kRotation = decltype(rotation)::value;
      const bool whole = kRotation == Rotation::kNone || 2 * shape.pairs == shape.dim;
      if (whole && shape.dim == 64) return fn(Kind<T, kRotation, 64>{});
      if (whole && shape.dim == 128 && sizeof(T) != 8) return fn(Kind<T, kRotation, 128>{});
      fn(Kind<T, kRotation, 0>{});
    };
    switch (shape.rotation) {
      case Rotation::kNone:
        return with_dim(std::integral_constant<Rotation, Rotation::kNone>{});
      case Rotation::kHalves:
        return with_dim(std::integral_constant<Rotation, Rotation::kHalves>{});
      case Rotation::kInterleaved:
        return fn(Kind<T, Rotation::kInterleaved, 0>{});
    }
  });
}

}  // namespace

void rms_norm_forward(const RmsNormForward& p, int64_t begin, int64_t end) {
  visit_kind(p.shape, [&](auto kind) { forward_tokens<decltype(kind)>(p, begin, end); });
}

void rms_norm_backward(const RmsNormBackward& p, int64_t begin, int64_t end) {
  visit_kind(p.shape, [&](auto kind) { backward_chunks<decltype(kind)>(p, begin, end); });
}

}  // namespace cosmos::ops::COSMOS_ISA
