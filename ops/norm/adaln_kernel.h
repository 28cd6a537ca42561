#pragma once

// What the CPU and CUDA kernels of adaln.h are given: raw pointers, no torch.
//
// x is `rows` rows of `dim`. Row r takes modulation row r / segment. Backward sums of modulation go
// through partials: each segment is cut into `chunks` chunks of `chunk_rows` rows (the last may be
// shorter), chunk c of segment s writes partial row s * chunks + c, and segment_reduce
// (ops/core) adds them in order.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// One row of modulation per segment; rows `stride` elements apart.
struct Modulation {
  const void* data = nullptr;
  int64_t stride = 0;
};

struct RowShape {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t segment = 1;     ///< rows that share one modulation row
  int64_t chunk_rows = 1;  ///< rows of one partial sum
  int64_t chunks = 1;      ///< partial sums per segment
};

/// y null: adaln(x). y set: sum = x + gate * y first.
struct AdaLnForward {
  RowShape shape;
  const void* x;
  const void* y;
  Modulation gate, scale, shift;
  double eps;
  void* sum;     ///< [rows, dim], only with y
  void* normed;  ///< [rows, dim]
  void* mean;    ///< [rows], accumulate type
  void* rstd;    ///< [rows], accumulate type
};

/// Gradients of AdaLnForward; x is the tensor that was normalised (sum when there was a y).
struct AdaLnBackward {
  RowShape shape;
  const void* grad_normed;
  const void* grad_sum;  ///< gradient that reaches sum from elsewhere, or null
  const void* x;
  const void* y;  ///< null without a gated residual
  Modulation gate, scale;
  const void* mean;
  const void* rstd;
  void* grad_x;
  void* grad_y;  ///< only with y
  /// [segments * chunks, dim] each, accumulate type; all null when no gradient of modulation is
  /// wanted.
  void* scale_partial;
  void* shift_partial;
  void* gate_partial;  ///< only with y
};

struct GatedResidualForward {
  RowShape shape;
  const void* x;
  const void* y;
  Modulation gate;
  void* out;
};

struct GatedResidualBackward {
  RowShape shape;
  const void* grad;
  const void* y;
  Modulation gate;
  void* grad_y;
  void* gate_partial;  ///< [segments * chunks, dim] or null
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
// Whole tensors, queued on `stream` (a cudaStream_t).
void adaln_forward_cuda(const AdaLnForward& params, void* stream);
void adaln_backward_cuda(const AdaLnBackward& params, void* stream);
void gated_residual_forward_cuda(const GatedResidualForward& params, void* stream);
void gated_residual_backward_cuda(const GatedResidualBackward& params, void* stream);
#endif

}  // namespace cosmos::ops
