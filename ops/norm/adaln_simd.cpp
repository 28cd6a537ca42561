// CPU rows of adaln.h. Forward takes rows [begin, end), backward takes chunks [begin, end), so that
// every partial sum has one writer.

#include <algorithm>

#include "ops/core/simd.h"
#include "ops/norm/adaln_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename T>
const T* row(const void* data, int64_t index, int64_t stride) {
  return data ? static_cast<const T*>(data) + index * stride : nullptr;
}
template <typename T>
T* row(void* data, int64_t index, int64_t stride) {
  return data ? static_cast<T*>(data) + index * stride : nullptr;
}
template <typename T>
const T* row(const Modulation& m, int64_t index) {
  return row<T>(m.data, index, m.stride);
}

template <typename T>
void gated_add(int64_t dim, const T* x, const T* y, const T* gate, T* out) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) store(out[i], load(x[i]) + load(gate[i]) * load(y[i]));
}

template <typename T>
void adaln_forward_rows(const AdaLnForward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t dim = p.shape.dim;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t s = r / p.shape.segment;
    const T* x = row<T>(p.x, r, dim);
    if (p.y) {
      T* sum = row<T>(p.sum, r, dim);
      gated_add(dim, x, row<T>(p.y, r, dim), row<T>(p.gate, s), sum);
      x = sum;
    }
    const A mean = sum_of<A>(dim, [=](int64_t i) { return A(load(x[i])); }) / A(dim);
    const A square = sum_of<A>(dim, [=](int64_t i) {
      const A d = load(x[i]) - mean;
      return d * d;
    });
    const A rstd = A(1) / std::sqrt(square / A(dim) + A(p.eps));
    const T* scale = row<T>(p.scale, s);
    const T* shift = row<T>(p.shift, s);
    T* out = row<T>(p.normed, r, dim);
#pragma omp simd
    for (int64_t i = 0; i < dim; ++i)
      store(out[i], (load(x[i]) - mean) * rstd * (A(1) + load(scale[i])) + load(shift[i]));
    static_cast<A*>(p.mean)[r] = mean;
    static_cast<A*>(p.rstd)[r] = rstd;
  }
}

/// The two sums that a layer norm's input gradient needs, and this row's share of the modulation's.
template <typename T>
void backward_sums(int64_t dim, const T* grad, const T* x, const T* scale, Acc<T> mean, Acc<T> rstd,
                   Acc<T>* scale_sum, Acc<T>* shift_sum, Acc<T>& sum, Acc<T>& dot) {
  using A = Acc<T>;
  A a = 0, b = 0, c = 0, d = 0;
  const int64_t half = dim / 2;
  const auto term = [=](int64_t i, A& plain, A& product) {
    const A g = load(grad[i]);
    const A normed = (load(x[i]) - mean) * rstd;
    const A h = g * (A(1) + load(scale[i]));
    plain += h;
    product += h * normed;
    if (scale_sum) {
      scale_sum[i] += g * normed;
      shift_sum[i] += g;
    }
  };
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t i = 0; i < half; ++i) {
    term(i, a, b);
    term(i + half, c, d);
  }
  if (dim % 2) term(dim - 1, a, b);
  sum = a + c;
  dot = b + d;
}

/// grad_x = rstd * (h - mean(h) - normed * mean(h * normed)) + grad_sum, h = grad * (1 + scale);
/// with a gated residual grad_y = gate * grad_x and the gate's share grad_x * y.
template <typename T, bool kResidual, bool kGated>
void backward_row(int64_t dim, const T* grad, const T* grad_sum, const T* x, const T* y,
                  const T* scale, const T* gate, Acc<T> mean, Acc<T> rstd, Acc<T> sum, Acc<T> dot,
                  T* grad_x, T* grad_y, Acc<T>* gate_sum) {
  using A = Acc<T>;
  const A mean_h = sum / A(dim), mean_dot = dot / A(dim);
  const auto input_gradient = [=](int64_t i) {
    const A normed = (load(x[i]) - mean) * rstd;
    const A h = load(grad[i]) * (A(1) + load(scale[i]));
    A g = rstd * (h - mean_h - normed * mean_dot);
    if constexpr (kResidual) g += load(grad_sum[i]);
    return g;
  };
  if (kGated && gate_sum) {
#pragma omp simd
    for (int64_t i = 0; i < dim; ++i) {
      const A g = input_gradient(i);
      store(grad_x[i], g);
      store(grad_y[i], load(gate[i]) * g);
      gate_sum[i] += g * load(y[i]);
    }
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    const A g = input_gradient(i);
    store(grad_x[i], g);
    if constexpr (kGated) store(grad_y[i], load(gate[i]) * g);
  }
}

/// The rows of chunk c.
struct Rows {
  int64_t segment, begin, end;
};
Rows rows_of(const RowShape& shape, int64_t chunk) {
  const int64_t segment = chunk / shape.chunks;
  const int64_t first = segment * shape.segment;
  const int64_t begin = first + chunk % shape.chunks * shape.chunk_rows;
  return {segment, begin, std::min(begin + shape.chunk_rows, first + shape.segment)};
}

template <typename A>
A* zeroed_partial(void* data, int64_t chunk, int64_t dim) {
  A* partial = row<A>(data, chunk, dim);
  if (partial) std::fill_n(partial, dim, A(0));
  return partial;
}

template <typename T>
void adaln_backward_chunks(const AdaLnBackward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t dim = p.shape.dim;
  for (int64_t c = begin; c < end; ++c) {
    A* scale_sum = zeroed_partial<A>(p.scale_partial, c, dim);
    A* shift_sum = zeroed_partial<A>(p.shift_partial, c, dim);
    A* gate_sum = zeroed_partial<A>(p.gate_partial, c, dim);
    const Rows rows = rows_of(p.shape, c);
    const T* scale = row<T>(p.scale, rows.segment);
    const T* gate = row<T>(p.gate, rows.segment);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const T* grad = row<T>(p.grad_normed, r, dim);
      const T* grad_sum = row<T>(p.grad_sum, r, dim);
      const T* x = row<T>(p.x, r, dim);
      const T* y = row<T>(p.y, r, dim);
      T* grad_x = row<T>(p.grad_x, r, dim);
      T* grad_y = row<T>(p.grad_y, r, dim);
      const A mean = static_cast<const A*>(p.mean)[r], rstd = static_cast<const A*>(p.rstd)[r];
      A sum, dot;
      backward_sums(dim, grad, x, scale, mean, rstd, scale_sum, shift_sum, sum, dot);
      const auto finish = [&](auto residual, auto gated) {
        backward_row<T, decltype(residual)::value, decltype(gated)::value>(
            dim, grad, grad_sum, x, y, scale, gate, mean, rstd, sum, dot, grad_x, grad_y, gate_sum);
      };
      if (y)
        grad_sum ? finish(std::true_type{}, std::true_type{})
                 : finish(std::false_type{}, std::true_type{});
      else
        grad_sum ? finish(std::true_type{}, std::false_type{})
                 : finish(std::false_type{}, std::false_type{});
    }
  }
}

template <typename T>
void gated_residual_backward_chunks(const GatedResidualBackward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t dim = p.shape.dim;
  for (int64_t c = begin; c < end; ++c) {
    A* gate_sum = zeroed_partial<A>(p.gate_partial, c, dim);
    const Rows rows = rows_of(p.shape, c);
    const T* gate = row<T>(p.gate, rows.segment);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const T* grad = row<T>(p.grad, r, dim);
      const T* y = row<T>(p.y, r, dim);
      T* grad_y = row<T>(p.grad_y, r, dim);
      if (gate_sum) {
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) {
          const A g = load(grad[i]);
          store(grad_y[i], g * load(gate[i]));
          gate_sum[i] += g * load(y[i]);
        }
      } else {
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) store(grad_y[i], load(grad[i]) * load(gate[i]));
      }
    }
  }
}

}  // namespace

void adaln_forward(const AdaLnForward& p, int64_t begin, int64_t end) {
  visit_dtype(p.shape.dtype, [&](auto* t) {
    adaln_forward_rows<std::remove_pointer_t<decltype(t)>>(p, begin, end);
  });
}

void adaln_backward(const AdaLnBackward& p, int64_t begin, int64_t end) {
  visit_dtype(p.shape.dtype, [&](auto* t) {
    adaln_backward_chunks<std::remove_pointer_t<decltype(t)>>(p, begin, end);
  });
}

void gated_residual_forward(const GatedResidualForward& p, int64_t begin, int64_t end) {
  visit_dtype(p.shape.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const int64_t dim = p.shape.dim;
    for (int64_t r = begin; r < end; ++r)
      gated_add(dim, row<T>(p.x, r, dim), row<T>(p.y, r, dim), row<T>(p.gate, r / p.shape.segment),
                row<T>(p.out, r, dim));
  });
}

void gated_residual_backward(const GatedResidualBackward& p, int64_t begin, int64_t end) {
  visit_dtype(p.shape.dtype, [&](auto* t) {
    gated_residual_backward_chunks<std::remove_pointer_t<decltype(t)>>(p, begin, end);
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
