#pragma once

// What the kernels of fp8_quantize.h are given. x is a contiguous matrix [rows, columns].

#include <cstdint>
#include <cstring>

#include "ops/core/dtype.h"
#include "ops/core/host_device.h"

namespace cosmos::ops {

enum class Fp8Format : int { kE4M3, kE5M2 };

inline constexpr int64_t kFp8Block = 128;

/// What all quantising kernels share.
struct Fp8Source {
  DType dtype;
  Fp8Format format;
  bool power_of_two;
  int64_t rows, columns;
  const void* x;
};

/// Where one matrix's scales come from and what is written. The scale of row r and block b is
/// element r * row_stride + b * block_stride of `given` and `scale`; strides of 0 share it.
struct Fp8Side {
  const float* given = nullptr;  ///< null: from the block's own amax
  bool given_is_amax = false;    ///< `given` holds amaxes instead of scales
  int64_t row_stride = 0, block_stride = 0;
  float* scale = nullptr;     ///< null: not wanted
  float* amax = nullptr;      ///< [rows, blocks] whatever the strides; null: not wanted
  uint8_t* values = nullptr;  ///< contiguous; null: not wanted, nor is scale then
};

/// Blocks are `run` columns of one row; the last of a row may be shorter.
struct Fp8Runs {
  Fp8Source source;
  int64_t run;
  Fp8Side side;
};

/// Blocks lie in tiles of 128 x 128. square: a tile is one block, `side.scale` and `side.amax` are
/// its tiles' [tile rows, tile columns], and the transposed side shares its scales (only its values
/// are used). Otherwise blocks are 128 columns of one row, of x for `side`, of x^T for
/// `transposed`.
struct Fp8Tiles {
  Fp8Source source;
  bool square;
  Fp8Side side, transposed;
};

/// out = values * scale; element (r, c) has scale number r / row_group * row_stride + c / run *
/// block_stride.
struct Fp8Dequantize {
  DType dtype;  ///< of out
  Fp8Format format;
  int64_t rows, columns, run;
  const uint8_t* values;
  const float* scale;
  int64_t row_group, row_stride, block_stride;
  void* out;
};

namespace {

COSMOS_HOST_DEVICE inline int64_t blocks_of(int64_t size, int64_t block) {
  return (size + block - 1) / block;
}

/// amax / max, at least 2^-126 (whose reciprocal is finite), 1 for a block of zeros; rounded up to
/// a power of two on request. Infinity and NaN pass.
COSMOS_HOST_DEVICE inline float fp8_scale(float amax, float max, bool power_of_two) {
  if (amax == 0.f) return 1.f;
  float scale = amax / max;
  if (scale < 0x1p-126f) scale = 0x1p-126f;
  uint32_t bits;
  memcpy(&bits, &scale, sizeof(bits));
  if (power_of_two && bits < 0x7f800000u) {
    bits = (bits + 0x007fffffu) & 0xff800000u;
    memcpy(&scale, &bits, sizeof(scale));
  }
  return scale;
}

/// Exactly one block of those that share scale number (row, block) writes it.
COSMOS_HOST_DEVICE inline bool writes_scale(const Fp8Side& side, int64_t row, int64_t block) {
  return side.scale && (row == 0 || side.row_stride != 0) && (block == 0 || side.block_stride != 0);
}

}  // namespace

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void fp8_runs_cuda(const Fp8Runs& params, void* stream);
void fp8_tiles_cuda(const Fp8Tiles& params, void* stream);
void fp8_dequantize_runs_cuda(const Fp8Dequantize& params, void* stream);
#endif

}  // namespace cosmos::ops
