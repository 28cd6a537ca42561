#pragma once

// Clips as normalised latents: what a diffusion model trains on.

#include <functional>
#include <memory>
#include <string>

#include "modules/tokenizer/video_tokenizer.h"
#include "trainer/core/dataset.h"

namespace cosmos::trainer {

struct LatentOptions {
  /// "auto", "none" or a folder: see DiffusionConfig::latent_cache.
  std::string cache = "auto";
  /// What the cached latents depend on: the tokenizer's folder and weights, the data's settings.
  std::string fingerprint{};
  /// Factor on the normalised latents (sigma_data).
  double scale = 1;
};

/// Samples of `clips` with `video` (uint8 [3, T, H, W]) or raw `latents` replaced by normalised
/// `latents` ([C, T', H', W'] float32), and each video of `control` likewise with
/// `control_latents` ([k C, T', H', W']; views of several cameras stand along T'); other tensors
/// and texts stay. `tokenizer` null: latents are taken as they are. `settings` are the resolved
/// settings of the data, which say whether an item is the same window every time and may be kept.
std::shared_ptr<Dataset> latent_dataset(std::shared_ptr<Dataset> clips,
                                        std::shared_ptr<modules::VideoTokenizer> tokenizer,
                                        const Json& settings, const LatentOptions& options,
                                        const std::string& where);

}  // namespace cosmos::trainer
