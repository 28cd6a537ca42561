#pragma once

// What the kernels of fsq.h are given.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// Per-dimension constants of fsq.h. Small enough to travel with the params.
struct FsqLevels {
  static constexpr int kMost = 16;
  int dims = 0;
  int levels[kMost], basis[kMost];  ///< L_d; L_0 ... L_(d-1)
  double shift[kMost], half[kMost], offset[kMost];
};

struct FsqForward {
  DType dtype;
  FsqLevels levels;
  int64_t rows;
  const void* z;     ///< [rows, dims]
  void* codes;       ///< [rows, dims]
  int32_t* indices;  ///< [rows]
};

struct FsqBackward {
  DType dtype;
  FsqLevels levels;
  int64_t rows;
  const void* grad;
  const void* z;
  void* grad_z;
};

struct FsqDecode {
  DType dtype;
  FsqLevels levels;
  int64_t rows;
  const int32_t* indices;
  void* codes;
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void fsq_forward_cuda(const FsqForward& params, void* stream);
void fsq_backward_cuda(const FsqBackward& params, void* stream);
void fsq_decode_cuda(const FsqDecode& params, void* stream);
#endif

}  // namespace cosmos::ops
