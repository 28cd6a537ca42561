#pragma once

// Conditioning on frames and on text, as Cosmos video models do it: the first k latent frames of a
// clip are given (k = 0 text to world, 1 image to world, 2 video to world). A given frame enters
// the network clean, is marked in a mask channel, may carry a time of its own, and bears no loss.
//
// The indicator [B, 1, T, 1, 1] is 1 on given frames and 0 on frames to generate.

#include <cstdint>
#include <vector>

#include "modules/core/random.h"
#include "modules/core/tensor.h"

namespace cosmos::modules {

/// Draws k with probability proportional to probabilities[k]; an all-zero list throws. `random` is
/// one uniform number in [0, 1).
int64_t draw_condition_frames(const std::vector<double>& probabilities, double random);

/// Indicator for clips with `frames[b]` given latent frames out of `latent_frames`.
Tensor condition_indicator(const std::vector<int64_t>& frames, int64_t latent_frames);

/// The mask channel [B, 1, T, H, W] that the network reads (`condition_mask`).
Tensor condition_mask(const Tensor& indicator, int64_t height, int64_t width);

/// `given` on given frames, `otherwise` on the rest.  all: [B, C, T, H, W]
Tensor place_frames(const Tensor& indicator, const Tensor& given, const Tensor& otherwise);

/// The noise level at which the network sees each frame: `given` on given frames, the clip's own on
/// the others.  given, sigma: [B] -> [B, T]
Tensor frame_levels(const Tensor& indicator, const Tensor& given, const Tensor& sigma);

/// The network's timestep argument. condition_time < 0: one time a clip, [B]. Otherwise the given
/// frames have `condition_time` and the others the clip's: [B, 1, T, 1, 1] (the public pipelines
/// call this conditional_frame_timestep; it is in units of the network's time).
Tensor frame_timestep(const Tensor& indicator, const Tensor& time, double condition_time);

/// Zeroes the text embeddings of the samples with drop[b] != 0; Cosmos drops text to zeros, not to
/// the empty prompt.  text: [B, L, D]
Tensor drop_text(const Tensor& text, const std::vector<bool>& drop);

enum class LossFrames {
  kGenerated,  ///< mean over the frames that are generated
  kAll,        ///< mean over all frames; given ones contribute 0 (the NVIDIA code)
};

/// Weight of each frame's mean squared error, 0 on given frames: [B, T] float64
Tensor frame_weights(const Tensor& indicator, LossFrames frames);

}  // namespace cosmos::modules
