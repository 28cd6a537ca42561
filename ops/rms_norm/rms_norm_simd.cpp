// CPU rows of rms_norm.h. Forward takes tokens [begin, end) of batch * length, backward takes
// chunks of tokens, so that every partial weight gradient has one writer.

#include <algorithm>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/rms_norm/rms_norm_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename T>
const T* head(const HeadView& view, const HeadShape& shape, int64_t token, int64_t head) {
  return static_cast<const T*>(view.data) + token / shape.length * view.batch_stride +
         token % shape.length * view.token_stride + head * view.head_stride;
}

/// Row length that the compiler knows (heads of 64 and 128), or 0 to take it at run time.
template <int64_t kDim>
int64_t width(int64_t dim) {
  return kDim > 0 ? kDim : dim;
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

template <typename T, int64_t kDim>
void forward_tokens(const RmsNormForward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t dim = width<kDim>(p.shape.dim), half = dim / 2;
  const A* weight = static_cast<const A*>(p.weight);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t position = t % p.shape.length;
    const A* cos = static_cast<const A*>(p.cos) + (p.cos ? position * half : 0);
    const A* sin = static_cast<const A*>(p.sin) + (p.sin ? position * half : 0);
    for (int64_t h = 0; h < p.shape.heads; ++h) {
      const T* x = head<T>(p.x, p.shape, t, h);
      T* out = static_cast<T*>(p.out) + (t * p.shape.heads + h) * dim;
      const A r = inverse_rms(x, dim, p.eps);
      if (!p.cos) {
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) store(out[i], load(x[i]) * r * weight[i]);
        continue;
      }
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const A a = load(x[i]) * r * weight[i];
        const A b = load(x[i + half]) * r * weight[i + half];
        store(out[i], a * cos[i] - b * sin[i]);
        store(out[i + half], b * cos[i] + a * sin[i]);
      }
    }
  }
}

/// grad_x = r * h - x * r³ * mean(h * x), where h = weight * (gradient of the normed row, rotated
/// back) and r = 1 / rms.
template <typename T, int64_t kDim, bool kRotate>
void backward_row(const T* grad, const T* x, const Acc<T>* weight, const Acc<T>* cos,
                  const Acc<T>* sin, int64_t full, double eps, T* grad_x, Acc<T>* weight_sum) {
  using A = Acc<T>;
  const int64_t dim = width<kDim>(full), half = dim / 2;
  const A r = inverse_rms(x, dim, eps);
  // The sides of the rotation are loops of their own, and each knows its side when compiled: a side
  // picked per element keeps compilers from seeing the strides.
  const auto normed_gradient = [=](auto upper, int64_t i) -> A {
    if constexpr (!kRotate) return load(grad[i]);
    if constexpr (!upper) return load(grad[i]) * cos[i] + load(grad[i + half]) * sin[i];
    return load(grad[i]) * cos[i - half] - load(grad[i - half]) * sin[i - half];
  };
  const auto part = [=](auto upper, int64_t begin, int64_t end) {
    A dot = 0;
    if (weight_sum) {
#pragma omp simd reduction(+ : dot)
      for (int64_t i = begin; i < end; ++i) {
        const A g = normed_gradient(upper, i), value = load(x[i]);
        dot += g * weight[i] * value;
        weight_sum[i] += g * value * r;
      }
    } else {
#pragma omp simd reduction(+ : dot)
      for (int64_t i = begin; i < end; ++i)
        dot += normed_gradient(upper, i) * weight[i] * load(x[i]);
    }
    return dot;
  };
  const std::false_type lower;
  const std::true_type upper;
  const int64_t split = kRotate ? half : dim;
  const A dot = part(lower, 0, split) + part(upper, split, dim);
  const A pull = r * r * r * dot / A(dim);
  const auto write = [=](auto side, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i)
      store(grad_x[i], r * normed_gradient(side, i) * weight[i] - load(x[i]) * pull);
  };
  write(lower, 0, split);
  write(upper, split, dim);
}

template <typename T, int64_t kDim>
void backward_chunks(const RmsNormBackward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t dim = p.shape.dim, half = dim / 2;
  const int64_t tokens = p.shape.batch * p.shape.length;
  const A* weight = static_cast<const A*>(p.weight);
  for (int64_t c = begin; c < end; ++c) {
    A* weight_sum = static_cast<A*>(p.weight_partial);
    if (weight_sum) {
      weight_sum += c * dim;
      std::fill_n(weight_sum, dim, A(0));
    }
    const int64_t first = c * p.shape.chunk_tokens;
    const int64_t last = std::min(tokens, first + p.shape.chunk_tokens);
    for (int64_t t = first; t < last; ++t) {
      const int64_t position = t % p.shape.length;
      for (int64_t h = 0; h < p.shape.heads; ++h) {
        const T* grad = head<T>(p.grad, p.shape, t, h);
        const T* x = head<T>(p.x, p.shape, t, h);
        T* grad_x = static_cast<T*>(p.grad_x) + (t * p.shape.heads + h) * dim;
        if (p.cos)
          backward_row<T, kDim, true>(
              grad, x, weight, static_cast<const A*>(p.cos) + position * half,
              static_cast<const A*>(p.sin) + position * half, dim, p.eps, grad_x, weight_sum);
        else
          backward_row<T, kDim, false>(grad, x, weight, nullptr, nullptr, dim, p.eps, grad_x,
                                       weight_sum);
      }
    }
  }
}

/// Calls fn with the element type's null pointer and the row length as a constant where it is
/// common.
template <typename Fn>
void visit_width(const HeadShape& shape, Fn fn) {
  visit_dtype(shape.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    if (shape.dim == 64) return fn(t, std::integral_constant<int64_t, 64>{});
    if (shape.dim == 128 && sizeof(T) != 8) return fn(t, std::integral_constant<int64_t, 128>{});
    fn(t, std::integral_constant<int64_t, 0>{});
  });
}

}  // namespace

void rms_norm_forward(const RmsNormForward& p, int64_t begin, int64_t end) {
  visit_width(p.shape, [&](auto* t, auto dim) {
    forward_tokens<std::remove_pointer_t<decltype(t)>, decltype(dim)::value>(p, begin, end);
  });
}

void rms_norm_backward(const RmsNormBackward& p, int64_t begin, int64_t end) {
  visit_width(p.shape, [&](auto* t, auto dim) {
    backward_chunks<std::remove_pointer_t<decltype(t)>, decltype(dim)::value>(p, begin, end);
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
