#pragma once

// What the kernels of channel_norm.h are given. A position is one pixel of one frame. Work is cut
// into tiles of neighbouring positions; a backward tile owns one partial gradient of gamma.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// Positions of a CPU tile at most: its norms live on the stack.
inline constexpr int64_t kMaxChannelTile = 512;

/// Channels-last (`rows`): position p is a row, at p * channels. Otherwise channel c of sample b is
/// a plane, at (b * channels + c) * positions. Channels-last samples follow each other, so they
/// count as one (batch = 1).
struct ChannelTiles {
  DType dtype;
  bool rows;
  int64_t batch, channels, positions;  ///< positions of one sample
  int64_t tile, tiles;                 ///< positions of a tile, tiles of a sample
};

struct ChannelNormForward {
  ChannelTiles shape;
  const void* x;
  const void* gamma;  ///< [channels], accumulate type
  double eps;
  bool activation;
  void* out;
};

struct ChannelNormBackward {
  ChannelTiles shape;
  const void* grad;
  const void* x;
  const void* gamma;
  double eps;
  bool activation;
  void* grad_x;
  void* gamma_partial;  ///< [batch * tiles, channels], accumulate type; null when not wanted
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void channel_norm_forward_cuda(const ChannelNormForward& params, void* stream);
void channel_norm_backward_cuda(const ChannelNormBackward& params, void* stream);
#endif

}  // namespace cosmos::ops
