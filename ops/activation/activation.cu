// CUDA kernels of activation.h. A thread takes one 16-byte vector of a row, or single elements
// where rows do not lie on 16 bytes. A block stays within one row, so that finding the row costs
// one 32-bit division. Elementwise: no shared memory, no order to fix. Bytes as in activation.h.

#include <algorithm>
#include <type_traits>

#include "ops/activation/activation_kernel.h"
#include "ops/core/cuda.cuh"

namespace cosmos::ops {
namespace {

using cuda::load;
using cuda::store;

constexpr int kThreads = 256;

// Formulas as in activation_simd.cpp. Exponential and division are the hardware's, within a few
// units in the last place: with libm's exact ones these kernels compute longer than they load.

__device__ inline float exponential(float x) {
  return exp2f(1.44269504f * x);
}
__device__ inline float sigmoid(float x) {
  return __fdividef(1.f, 1.f + exponential(-x));
}

/// An activation at one point. Forward uses the value alone; the compiler drops the rest.
struct Point {
  float value, slope;
};

struct Silu {
  static __device__ Point at(float x) {
    const float s = sigmoid(x);
    return {x * s, s + x * s * (1.f - s)};
  }
};

/// x Φ(x).
struct Gelu {
  static __device__ Point at(float x) {
    // normal_tail of simd_math.h at |x|, coefficients from the highest power down.
    const float a = fabsf(x);
    float p = -1.33272306e-06f;
    p = p * a + 2.1637552e-05f;
    p = p * a - 0.000103584054f;
    p = p * a - 0.000331237359f;
    p = p * a + 0.00730919605f;
    p = p * a - 0.0526602715f;
    p = p * a - 0.459155679f;
    p = p * a - 1.15111148f;
    p = p * a - 0.999999881f;
    const float tail = exp2f(p);
    const float cdf = x < 0.f ? tail : 1.f - tail;
    return {x * cdf, cdf + x * 0.398942280f * exponential(-0.5f * x * x)};
  }
};

/// 0.5 x (1 + tanh(u)) is x sigmoid(2u).
struct GeluTanh {
  static __device__ Point at(float x) {
    constexpr float kScale = 1.59576912f;  // 2 sqrt(2/π)
    constexpr float kCubic = 0.044715f;
    const float square = x * x;
    const float s = sigmoid(kScale * x * (1.f + kCubic * square));
    return {x * s, s + x * s * (1.f - s) * kScale * (1.f + 3.f * kCubic * square)};
  }
};

/// Kernels take one struct.
template <typename Params>
struct Blocked {
  Params params;
  unsigned blocks_per_row;
};

/// Calls fn(row, first element, constant width) for this thread's vector, element by element at a
/// row's ragged end.
template <int kVec, typename Params, typename Fn>
__device__ inline void for_own_elements(const Blocked<Params>& b, Fn fn) {
  const int64_t row = blockIdx.x / b.blocks_per_row, dim = b.params.shape.dim;
  const int64_t thread =
      static_cast<int64_t>(blockIdx.x % b.blocks_per_row) * blockDim.x + threadIdx.x;
  const int64_t first = thread * kVec;
  if (first + kVec <= dim) return fn(row, first, std::integral_constant<int, kVec>{});
#pragma unroll 1
  for (int64_t i = first; i < dim; ++i) fn(row, i, std::integral_constant<int, 1>{});
}

template <typename T>
__device__ inline const T* element(const RowsView& view, int64_t row, int64_t i) {
  return static_cast<const T*>(view.data) + row * view.row_stride + i;
}

template <typename T, int kVec, typename F>
__global__ void __launch_bounds__(kThreads)
    activation_forward_kernel(Blocked<ActivationForward> b) {
  const ActivationForward& p = b.params;
  for_own_elements<kVec>(b, [&](int64_t row, int64_t i, auto width) {
    constexpr int kWidth = decltype(width)::value;
    float x[kWidth], up[kWidth];
    load(element<T>(p.x, row, i), x);
    if (p.up.data) load(element<T>(p.up, row, i), up);
    for (int k = 0; k < kWidth; ++k) x[k] = F::at(x[k]).value * (p.up.data ? up[k] : 1.f);
    store(static_cast<T*>(p.out) + row * p.shape.dim + i, x);
  });
}

template <typename T, int kVec, typename F>
__global__ void __launch_bounds__(kThreads)
    activation_backward_kernel(Blocked<ActivationBackward> b) {
  const ActivationBackward& p = b.params;
  for_own_elements<kVec>(b, [&](int64_t row, int64_t i, auto width) {
    constexpr int kWidth = decltype(width)::value;
    float grad[kWidth], x[kWidth], up[kWidth];
    load(element<T>(p.grad, row, i), grad);
    load(element<T>(p.x, row, i), x);
    if (p.up.data) load(element<T>(p.up, row, i), up);
    for (int k = 0; k < kWidth; ++k) {
      const Point f = F::at(x[k]);
      x[k] = grad[k] * f.slope * (p.up.data ? up[k] : 1.f);
      up[k] = grad[k] * f.value;
    }
    const int64_t out = row * p.shape.dim + i;
    store(static_cast<T*>(p.grad_x) + out, x);
    if (p.up.data) store(static_cast<T*>(p.grad_up) + out, up);
  });
}

/// Do this operand's rows start on 16 bytes? Outputs follow from `dim`.
bool rows_aligned(const ActivationShape& shape, const RowsView& view) {
  const int64_t wide = shape.dtype == DType::kFloat32 ? 4 : 8;
  return cuda::aligned(view.data) &&
         (shape.rows == 1 || (view.row_stride % wide == 0 && shape.dim % wide == 0));
}

/// Calls fn with the element type's null pointer, the vector's width and the activation.
template <typename Fn>
void visit(const ActivationShape& shape, bool aligned, Fn fn) {
  cuda::visit_dtype(shape.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto with_width = [&](auto width) {
      switch (shape.kind) {
        case ActivationKind::kSilu:
          return fn(type, width, Silu{});
        case ActivationKind::kGelu:
          return fn(type, width, Gelu{});
        case ActivationKind::kGeluTanh:
          return fn(type, width, GeluTanh{});
      }
    };
    if (aligned)
      with_width(std::integral_constant<int, 16 / sizeof(T)>{});
    else
      with_width(std::integral_constant<int, 1>{});
  });
}

/// Short rows get blocks of fewer warps.
template <typename Params>
void launch_rows(void (*kernel)(Blocked<Params>), const Params& p, int width, void* stream) {
  const int64_t vectors = (p.shape.dim + width - 1) / width;
  const int threads = static_cast<int>(
      std::min<int64_t>(kThreads, (vectors + cuda::kWarp - 1) / cuda::kWarp * cuda::kWarp));
  const unsigned blocks_per_row = cuda::blocks_for(vectors, threads);
  cuda::launch(kernel, cuda::blocks_for(p.shape.rows * blocks_per_row, 1), threads,
               Blocked<Params>{p, blocks_per_row}, stream);
}

}  // namespace

void activation_forward_cuda(const ActivationForward& p, void* stream) {
  const bool aligned = rows_aligned(p.shape, p.x) && rows_aligned(p.shape, p.up);
  visit(p.shape, aligned, [&](auto* type, auto width, auto f) {
    launch_rows(activation_forward_kernel<std::remove_pointer_t<decltype(type)>,
                                          decltype(width)::value, decltype(f)>,
                p, width.value, stream);
  });
}

void activation_backward_cuda(const ActivationBackward& p, void* stream) {
  const bool aligned =
      rows_aligned(p.shape, p.grad) && rows_aligned(p.shape, p.x) && rows_aligned(p.shape, p.up);
  visit(p.shape, aligned, [&](auto* type, auto width, auto f) {
    launch_rows(activation_backward_kernel<std::remove_pointer_t<decltype(type)>,
                                           decltype(width)::value, decltype(f)>,
                p, width.value, stream);
  });
}

}  // namespace cosmos::ops
