// CPU loops of activation.h: units [begin, end) of kActivationUnit elements.

#include <algorithm>
#include <type_traits>

#include "ops/activation/activation_kernel.h"
#include "ops/core/simd.h"
#include "ops/core/simd_math.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

/// An activation at one point. Forward uses the value alone; compilers drop the rest.
template <typename A>
struct Point {
  A value, slope;
};

struct Silu {
  template <typename A>
  static Point<A> at(A x) {
    const A s = simd::sigmoid(x);
    return {x * s, s + x * s * (A(1) - s)};
  }
};

/// x Φ(x). The lower tail is computed as such, which keeps the digits that 1 + erf cancels.
struct Gelu {
  static constexpr double kSqrtHalf = 0.70710678118654752440;
  static constexpr double kDensity = 0.39894228040143267794;  // 1 / sqrt(2π)

  static Point<float> at(float x) {
    const float tail = simd::normal_tail(std::fabs(x));
    const float cdf = x < 0.f ? tail : 1.f - tail;
    const float density = static_cast<float>(kDensity) * simd::exp_nonpositive(-0.5f * x * x);
    return {x * cdf, cdf + x * density};
  }
  static Point<double> at(double x) {
    const double cdf = 0.5 * std::erfc(-x * kSqrtHalf);
    return {x * cdf, cdf + x * std::exp(-0.5 * x * x) * kDensity};
  }
};

/// 0.5 x (1 + tanh(u)) is x sigmoid(2u).
struct GeluTanh {
  template <typename A>
  static Point<A> at(A x) {
    constexpr A kScale = A(1.59576912160573071176);  // 2 sqrt(2/π)
    constexpr A kCubic = A(0.044715);
    const A square = x * x;
    const A s = simd::sigmoid(kScale * x * (A(1) + kCubic * square));
    return {x * s, s + x * s * (A(1) - s) * kScale * (A(1) + A(3) * kCubic * square)};
  }
};

/// fn(i) for i < n; float64 asks libm, which no compiler vectorises.
template <typename A, typename Fn>
void for_each(int64_t n, Fn fn) {
  if constexpr (std::is_same_v<A, double>) {
    for (int64_t i = 0; i < n; ++i) fn(i);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) fn(i);
  }
}

/// The part of a row that is one unit.
struct Unit {
  int64_t row, first, count;

  Unit(const ActivationShape& shape, int64_t index) {
    const int64_t units = activation_units_per_row(shape);
    row = index / units;
    first = index % units * kActivationUnit;
    count = std::min(kActivationUnit, shape.dim - first);
  }

  template <typename T>
  const T* of(const RowsView& view) const {
    return static_cast<const T*>(view.data) + row * view.row_stride + first;
  }
  template <typename T>
  T* of(void* data, const ActivationShape& shape) const {
    return static_cast<T*>(data) + row * shape.dim + first;
  }
};

template <typename T, typename F>
void forward_units(const ActivationForward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t u = begin; u < end; ++u) {
    const Unit unit(p.shape, u);
    const T* x = unit.of<T>(p.x);
    T* out = unit.of<T>(p.out, p.shape);
    if (!p.up.data) {
      for_each<A>(unit.count, [=](int64_t i) { store(out[i], F::at(load(x[i])).value); });
      continue;
    }
    const T* up = unit.of<T>(p.up);
    for_each<A>(unit.count,
                [=](int64_t i) { store(out[i], F::at(load(x[i])).value * load(up[i])); });
  }
}

template <typename T, typename F>
void backward_units(const ActivationBackward& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t u = begin; u < end; ++u) {
    const Unit unit(p.shape, u);
    const T *grad = unit.of<T>(p.grad), *x = unit.of<T>(p.x);
    T* grad_x = unit.of<T>(p.grad_x, p.shape);
    if (!p.up.data) {
      for_each<A>(unit.count,
                  [=](int64_t i) { store(grad_x[i], load(grad[i]) * F::at(load(x[i])).slope); });
      continue;
    }
    const T* up = unit.of<T>(p.up);
    T* grad_up = unit.of<T>(p.grad_up, p.shape);
    for_each<A>(unit.count, [=](int64_t i) {
      const Point<A> f = F::at(load(x[i]));
      const A g = load(grad[i]);
      store(grad_x[i], g * load(up[i]) * f.slope);
      store(grad_up[i], g * f.value);
    });
  }
}

/// Calls fn with the element type's null pointer and the activation.
template <typename Fn>
void visit(const ActivationShape& shape, Fn fn) {
  visit_dtype(shape.dtype, [&](auto* type) {
    switch (shape.kind) {
      case ActivationKind::kSilu:
        return fn(type, Silu{});
      case ActivationKind::kGelu:
        return fn(type, Gelu{});
      case ActivationKind::kGeluTanh:
        return fn(type, GeluTanh{});
    }
  });
}

}  // namespace

void activation_forward(const ActivationForward& p, int64_t begin, int64_t end) {
  visit(p.shape, [&](auto* type, auto f) {
    forward_units<std::remove_pointer_t<decltype(type)>, decltype(f)>(p, begin, end);
  });
}

void activation_backward(const ActivationBackward& p, int64_t begin, int64_t end) {
  visit(p.shape, [&](auto* type, auto f) {
    backward_units<std::remove_pointer_t<decltype(type)>, decltype(f)>(p, begin, end);
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
