#pragma once

// The best linear tokenizer: principal components of space-time patches. It needs no training, so a
// trained one is judged against it.

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// Patches of `time` x `space` x `space` pixels to `components` numbers and back, with the frame
/// rule of the tokenizers: frame 0 makes a patch of its own (repeated), then `time` frames each.
class LinearBaseline {
 public:
  LinearBaseline(int64_t time, int64_t space, int64_t components);

  /// Adds clips to what is fitted. video: [B, C, 1 + k time, H, W].
  void add(const Tensor& video);
  /// What is left of a clip after compression; same shape. The components are found at the first
  /// call after add(). Throws Error when nothing was added.
  Tensor reconstruct(const Tensor& video);

 private:
  Tensor patches(const Tensor& video) const;

  int64_t time_, space_, components_;
  int64_t count_ = 0;
  Tensor sum_, products_;  ///< float64 [n], [n, n]
  Tensor mean_, basis_;    ///< [n], [n, components]
};

}  // namespace cosmos::modules
