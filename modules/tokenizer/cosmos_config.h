#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::modules {

/// config.json of AutoencoderKLCosmos; key names and defaults as diffusers has them (the defaults
/// are Cosmos-Tokenizer CV8x8x8).
struct CosmosVaeConfig {
  int64_t in_channels = 3, out_channels = 3;
  int64_t latent_channels = 16;
  std::vector<int64_t> encoder_block_out_channels{128, 256, 512, 512};
  std::vector<int64_t> decode_block_out_channels{256, 512, 512, 512};  // sic
  std::vector<int64_t> attention_resolutions{32};
  int64_t resolution = 1024;
  int64_t num_layers = 2;
  int64_t patch_size = 4;
  std::string patch_type = "haar";
  int64_t spatial_compression_ratio = 8, temporal_compression_ratio = 8;
  LatentStats stats = default_stats();
  /// Width of the networks' ends where it differs from latent_channels (discrete tokenizers).
  std::optional<int64_t> z_channels = std::nullopt;

  int64_t network_channels() const { return z_channels.value_or(latent_channels); }

  template <typename Visitor>
  void fields(Visitor& v) {
    visit_network(v);
    v("latent_channels", latent_channels);
    v("scaling_factor", stats.scaling_factor);
    v("latents_mean", stats.mean);
    v("latents_std", stats.std);
  }
  /// What makes the network, whatever becomes of its latents.
  template <typename Visitor>
  void visit_network(Visitor& v) {
    v("in_channels", in_channels);
    v("out_channels", out_channels);
    v("encoder_block_out_channels", encoder_block_out_channels, "widths of the encoder's levels");
    v("decode_block_out_channels", decode_block_out_channels, "widths of the decoder's levels");
    v("attention_resolutions", attention_resolutions, "levels with attention, by resolution");
    v("resolution", resolution, "base resolution that attention_resolutions refers to");
    v("num_layers", num_layers, "residual blocks per encoder level (decoder: one more)");
    v("patch_size", patch_size);
    v("patch_type", patch_type, "haar or rearrange");
    v("spatial_compression_ratio", spatial_compression_ratio);
    v("temporal_compression_ratio", temporal_compression_ratio);
  }

  /// Throws Error when the values do not make a network.
  void check(const std::string& where) const;

  /// The statistics of CV8x8x8: 16 channels x 16 latent frames.
  static LatentStats default_stats();
};

}  // namespace cosmos::modules
