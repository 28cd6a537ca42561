#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::modules {

/// config.json of AutoencoderKLWan; key names and defaults as diffusers has them (the defaults are
/// the Wan 2.1 VAE, the tokenizer of Cosmos Predict 2 and 2.5).
struct WanVaeConfig {
  int64_t base_dim = 96;
  std::optional<int64_t> decoder_base_dim;
  int64_t z_dim = 16;
  std::vector<int64_t> dim_mult{1, 2, 4, 4};
  int64_t num_res_blocks = 2;
  std::vector<double> attn_scales;
  std::vector<bool> temperal_downsample{false, true, true};  // sic
  double dropout = 0;
  LatentStats stats = default_stats();
  bool is_residual = false;
  int64_t in_channels = 3, out_channels = 3;
  std::optional<int64_t> patch_size;
  std::optional<int64_t> scale_factor_temporal = 4, scale_factor_spatial = 8;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("base_dim", base_dim, "width of the finest level");
    v("decoder_base_dim", decoder_base_dim, "the decoder's; base_dim when null");
    v("z_dim", z_dim, "latent channels");
    v("dim_mult", dim_mult, "width of each level, in base_dim");
    v("num_res_blocks", num_res_blocks, "residual blocks per encoder level (decoder: one more)");
    v("attn_scales", attn_scales, "scales (1, 0.5, ...) at which the encoder has attention");
    v("temperal_downsample", temperal_downsample, "whether each change of level halves time");
    v("dropout", dropout);
    v("latents_mean", stats.mean);
    v("latents_std", stats.std);
    v("is_residual", is_residual, "Wan 2.2: levels with a pooled shortcut");
    v("in_channels", in_channels, "after patching");
    v("out_channels", out_channels, "before unpatching");
    v("patch_size", patch_size, "patches in space (Wan 2.2)");
    v("scale_factor_temporal", scale_factor_temporal);
    v("scale_factor_spatial", scale_factor_spatial);
  }

  int64_t patch() const { return patch_size.value_or(1); }

  /// Throws Error when the values do not make a network.
  void check(const std::string& where) const;

  static LatentStats default_stats();
};

}  // namespace cosmos::modules
