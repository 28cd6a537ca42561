#pragma once

// What the kernels of patchify.h are given. One unit of work is a row of tokens: batch * t * h of
// them, each w tokens of `features` elements and lines() video lines of w * pw elements.

#include <cstdint>

namespace cosmos::ops {

struct Patches {
  int bytes = 0;  ///< of an element: 1, 2, 4, 8, or 16 where neighbours are moved together
  int64_t batch = 0, channels = 0;
  int64_t t = 0, h = 0, w = 0;     ///< patches
  int64_t pt = 0, ph = 0, pw = 0;  ///< elements of a patch
  int64_t features = 0;            ///< channels * pt * ph * pw
  /// Strides in elements: of the video [B, C, T, H, W] and, inside a token, of channel, pt, ph, pw.
  int64_t video[5] = {};
  int64_t token[4] = {};

  int64_t rows() const { return batch * t * h; }
  int64_t lines() const { return channels * pt * ph; }
};

struct Patchify {
  Patches patches;
  const void* video;
  void* tokens;  ///< contiguous
};

struct Unpatchify {
  Patches patches;
  const void* tokens;
  void* video;
};

struct alignas(16) Bytes16 {
  uint64_t half[2];
};

/// fn(pointer to the type that elements of `bytes` bytes are moved as)
template <typename Fn>
void visit_bytes(int bytes, Fn fn) {
  switch (bytes) {
    case 1:
      return fn(static_cast<uint8_t*>(nullptr));
    case 2:
      return fn(static_cast<uint16_t*>(nullptr));
    case 4:
      return fn(static_cast<uint32_t*>(nullptr));
    case 8:
      return fn(static_cast<uint64_t*>(nullptr));
    default:
      return fn(static_cast<Bytes16*>(nullptr));
  }
}

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void patchify_cuda(const Patchify& params, void* stream);
void unpatchify_cuda(const Unpatchify& params, void* stream);
#endif

}  // namespace cosmos::ops
