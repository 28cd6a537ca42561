#pragma once

// What the kernels of rms_norm.h are given. A row is one head of one token: tokens * heads rows of
// dim.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// A [batch, length, heads, dim] tensor, dim contiguous, other strides free (in elements).
struct HeadView {
  const void* data = nullptr;
  int64_t batch_stride = 0, token_stride = 0, head_stride = 0;
};

struct HeadShape {
  DType dtype = DType::kFloat32;
  int64_t batch = 0, length = 0, heads = 0, dim = 0;
  int64_t chunk_tokens = 1;  ///< tokens (of batch * length) of one partial weight gradient
};

struct RmsNormForward {
  HeadShape shape;
  HeadView x;
  const void* weight;  ///< [dim], accumulate type
  const void* cos;     ///< [length, dim / 2], accumulate type; null: no rotation
  const void* sin;
  double eps;
  void* out;  ///< [batch, length, heads, dim], contiguous
};

struct RmsNormBackward {
  HeadShape shape;
  HeadView grad, x;
  const void* weight;
  const void* cos;
  const void* sin;
  double eps;
  void* grad_x;          ///< contiguous
  void* weight_partial;  ///< [chunks, dim], accumulate type; null when not wanted
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void rms_norm_forward_cuda(const RmsNormForward& params, void* stream);
void rms_norm_backward_cuda(const RmsNormBackward& params, void* stream);
#endif

}  // namespace cosmos::ops
