#pragma once

// Space-time patches: the first and last step of a tokenizer, without weights.

#include <string>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// How a p x p x p block becomes p^3 channels (AutoencoderKLCosmos: patch_type).
enum class PatchType {
  kHaar,       ///< ops/haar/haar.h: p a power of two, channels (band, c)
  kRearrange,  ///< the samples themselves: (c, t, h, w)
};

/// video: [B, C, T, H, W] -> [B, T', H/p, W/p, p^3 C]. At the start of a clip (`first`) frame 0
/// stands p times, so T' = (T - 1) / p + 1; else T' = T / p.
Tensor patchify(const Tensor& video, int64_t p, PatchType type, bool first);

/// Inverse of patchify: [B, T', h, w, p^3 C] -> [B, C, T, h p, w p]; the p - 1 copies of frame 0
/// are dropped when `first`.
Tensor unpatchify(const Tensor& x, int64_t p, PatchType type, bool first);

/// Patches in space only, as AutoencoderKLWan with patch_size orders them: channels (c, w, h).
/// video: [B, C, T, H, W] -> [B, T, H/p, W/p, C p^2]
Tensor patchify_space(const Tensor& video, int64_t p);
/// Inverse of patchify_space.
Tensor unpatchify_space(const Tensor& x, int64_t p);

/// Patches of images, as Cosmos Tokenizer's image networks order them. Haar: log2(p) levels, each
/// the means and half differences of pairs, bands with one digit base 4 a level, the last level's
/// first, a digit (w, h), 1 for "high"; channels (band, c). Rearranged: channels (c, h, w).
/// video: [B, C, T, H, W] -> [B, T, H/p, W/p, C p^2]
Tensor patchify_images(const Tensor& video, int64_t p, PatchType type);
/// Inverse of patchify_images.
Tensor unpatchify_images(const Tensor& x, int64_t p, PatchType type);

}  // namespace cosmos::modules
