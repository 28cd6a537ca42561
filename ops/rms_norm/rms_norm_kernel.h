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

/// Which numbers of a head make pair i: none, (i, i + pairs) or (2 i, 2 i + 1).
enum class Rotation : int { kNone, kHalves, kInterleaved };

struct HeadShape {
  DType dtype = DType::kFloat32;
  Rotation rotation = Rotation::kNone;
  int64_t batch = 0, length = 0, heads = 0, dim = 0;
  int64_t pairs = 0;               ///< columns of the tables; numbers from 2 * pairs on stay
  int64_t table_batch_stride = 0;  ///< elements; 0: all samples share the tables
  int64_t chunk_tokens = 1;        ///< tokens (of batch * length) of one partial weight gradient
};

struct RmsNormForward {
  HeadShape shape;
  HeadView x;
  bool norm;           ///< false: rotation alone, the weight is ones
  const void* weight;  ///< [dim], accumulate type
  const void* cos;     ///< [length, pairs] or one for each sample, accumulate type
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
