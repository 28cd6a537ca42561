#pragma once

// What the kernels of activation.h are given: one pair of kernels for all of its operators.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

enum class ActivationKind : int { kSilu, kGelu, kGeluTanh };

/// `rows` contiguous rows of `dim` elements. Tensors that are contiguous throughout are one row.
struct ActivationShape {
  DType dtype;
  ActivationKind kind;
  int64_t rows, dim;
};

struct RowsView {
  const void* data;    ///< null: the tensor is absent
  int64_t row_stride;  ///< in elements
};

/// out = f(x), times `up` where present.
struct ActivationForward {
  ActivationShape shape;
  RowsView x, up;
  void* out;  ///< [rows, dim], contiguous
};

/// grad_x = grad f'(x), times `up` where present, and then grad_up = grad f(x).
struct ActivationBackward {
  ActivationShape shape;
  RowsView grad, x, up;
  void* grad_x;   ///< [rows, dim], contiguous
  void* grad_up;  ///< like grad_x; null without up
};

/// The CPU's unit of work: this many elements of a row. Fixed, so that an element stands at the
/// same place of the same loop whatever the number of threads.
inline constexpr int64_t kActivationUnit = 4096;

inline int64_t activation_units_per_row(const ActivationShape& shape) {
  return (shape.dim + kActivationUnit - 1) / kActivationUnit;
}

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void activation_forward_cuda(const ActivationForward& params, void* stream);
void activation_backward_cuda(const ActivationBackward& params, void* stream);
#endif

}  // namespace cosmos::ops
