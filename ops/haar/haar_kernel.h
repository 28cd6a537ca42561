#pragma once

// What the kernels of haar.h are given, and the order of bands that they share.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// What stands before the clip, and what becomes of it on the way back. The third is the transpose
/// of the second.
enum class HaarFront : int64_t {
  kNone,            ///< nothing
  kStart,           ///< patch: frame 0, p - 1 times; unpatch: p - 1 frames that are dropped
  kStartTransposed  ///< patch: p - 1 zero frames; unpatch: p - 1 frames that are added to frame 0
};

/// Patching takes samples (frames * rows * columns blocks of p³) to bands, unpatching back.
struct HaarTransform {
  DType dtype;
  HaarFront front;
  int64_t patch;            ///< p: 2 or 4
  int64_t batch, channels;  ///< B, C
  int64_t blocks_t, blocks_h, blocks_w;
  int64_t frames;  ///< T of the video
  double scale;    ///< of every band (patching) or sample (unpatching)
  const void* from;
  void* to;
};

/// Bit l of `x` moved to bit `step` * l: a coordinate's share of something with a digit a level.
constexpr int64_t spread(int64_t x, int step) {
  int64_t result = 0;
  for (int l = 0; l < 2; ++l) result |= (x >> l & 1) << (step * l);
  return result;
}

/// The band that the transform leaves at position (t, h, w) of a block.
constexpr int64_t band_at(int64_t t, int64_t h, int64_t w) {
  return spread(t, 3) << 2 | spread(h, 3) << 1 | spread(w, 3);
}

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void haar_patch_cuda(const HaarTransform& params, void* stream);
void haar_unpatch_cuda(const HaarTransform& params, void* stream);
#endif

}  // namespace cosmos::ops
