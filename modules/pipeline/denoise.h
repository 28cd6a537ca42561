#pragma once

// The denoising loop that every Cosmos video generation shares: given frames are replaced, the
// network is called with and without text, the sampler steps.
//
// Legend: B clips, C latent channels, T latent frames, H x W latent rows and columns.

#include <functional>

#include "modules/diffusion/formulation.h"
#include "modules/diffusion/sampler.h"

namespace cosmos::modules {

/// One call of the network. input: [B, C, T, H, W] float32; time: [B] or [B, 1, T, 1, 1];
/// condition_mask: [B, 1, T, H, W]; text: [B, S, D]. Returns its raw output [B, C, T, H, W].
using Network = std::function<Tensor(const Tensor& input, const Tensor& time,
                                     const Tensor& condition_mask, const Tensor& text)>;

/// Latent frames that are given.
struct GivenFrames {
  Tensor latents;    ///< [B, C, T, H, W], normalised; only given frames are read
  Tensor indicator;  ///< [B, 1, T, 1, 1], 1 on given frames
};

struct DenoiseOptions {
  DiffusionOptions diffusion;
  /// cond + guidance (cond - uncond); the network is called once a step when 0.
  double guidance = 0;
  /// Network time of given frames; negative: that of the other frames.
  double condition_time = -1;
  /// edm: noise level at which given frames are shown, until the clip's own level is below it.
  double condition_sigma = 0.001;
  uint64_t seed = 0;  ///< of that noise
  /// Feed the sampler's integer timesteps / 1000 instead of its levels (NVIDIA's Predict2.5 code).
  bool integer_times = false;
  std::function<void(int64_t done, int64_t steps)> progress{};
};

/// Clean latents from `noise` (standard normal, [B, C, T, H, W]). negative_text is read only with
/// guidance. Runs without gradients.
/// Given frames of the result: predict2 and edm the given latents; rectified_flow those plus
/// (1 - first level) (noise - given), because the public pipelines start the path of given frames
/// at pure noise and integrate it from the first level on.
Tensor denoise(const Network& network, Sampler& sampler, const Tensor& noise,
               const GivenFrames& given, const Tensor& text, const Tensor& negative_text,
               const DenoiseOptions& options);

}  // namespace cosmos::modules
