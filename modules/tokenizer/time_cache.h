#pragma once

// What lets a causal network read a clip piece by piece: every layer that looks back in time keeps
// the few frames that the next piece still needs.
//
// Inside the tokenizers activations are x: [B, T, H, W, C], contiguous. That is channels-last, the
// layout in which convolutions, norms and products are fastest on CPU and GPU alike.

#include <map>
#include <utility>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// State of one clip between its chunks: for every causal layer the last frames of its input. Holds
/// a few frames per layer whatever the length of the clip, except for temporal attention, whose
/// keys and values of all past latent frames are part of the mathematics.
class TimeCache {
 public:
  /// True until end_chunk() was called once: the chunk that starts with frame 0 of the clip.
  bool first_chunk() const { return first_; }
  void end_chunk() { first_ = false; }

  /// What `layer` keeps, undefined before its first chunk. `index` separates several tensors.
  Tensor& slot(const torch::nn::Module& layer, int index = 0) { return slots_[{&layer, index}]; }

  /// Bytes held.
  int64_t bytes() const;

 private:
  bool first_ = true;
  std::map<std::pair<const torch::nn::Module*, int>, Tensor> slots_;
};

/// What stands before frame 0.
enum class FrontPad {
  kZeros,        ///< Wan
  kRepeatFirst,  ///< Cosmos: frame 0 again
};

/// The frames before x that `layer` kept, undefined at the start of a clip or without a cache; the
/// cache then keeps the last `keep` frames of those and x.  x: [B, T, H, W, C] -> [B, n, H, W, C].
/// At the start, `front` frames as `pad` says stand before x.
Tensor swap_past(const Tensor& x, int64_t front, int64_t keep, FrontPad pad, TimeCache* cache,
                 const torch::nn::Module& layer);

}  // namespace cosmos::modules
