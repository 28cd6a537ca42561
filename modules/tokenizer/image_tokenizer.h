#pragma once

// The image tokenizers of Cosmos Tokenizer: CI8x8 and CI16x16 (continuous), DI8x8 and DI16x16
// (discrete). diffusers has no such classes; ours are called CosmosImageTokenizer and, with
// `levels` in the config, CosmosDiscreteImageTokenizer. A clip is a pile of images, each by itself:
// temporal_compression is 1, and streams work as for every tokenizer.

#include "modules/tokenizer/configured_tokenizer.h"
#include "modules/tokenizer/image_blocks.h"
#include "modules/tokenizer/patches.h"

namespace cosmos::modules {

/// config.json, in the words of AutoencoderKLCosmos' config where it has them. The networks' levels
/// are `channels` times `channel_multipliers` wide; the first log2(compression / patch_size) of the
/// encoder halve the picture, as many of the decoder's last double it.
struct ImageTokenizerConfig {
  int64_t in_channels = 3, out_channels = 3;
  int64_t channels = 128;
  std::vector<int64_t> channel_multipliers = {2, 4, 4};
  int64_t num_layers = 2;
  std::vector<int64_t> attention_resolutions = {32};
  int64_t resolution = 1024;
  int64_t patch_size = 2;
  std::string patch_type = "haar";
  int64_t spatial_compression_ratio = 8;
  int64_t z_channels = 16;       ///< of the networks' ends
  int64_t latent_channels = 16;  ///< of the latents; as many as levels where there are any
  std::vector<int64_t> levels;   ///< of a discrete tokenizer
  LatentStats stats = {};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("in_channels", in_channels);
    v("out_channels", out_channels);
    v("channels", channels, "width of the first convolution");
    v("channel_multipliers", channel_multipliers, "width of each level, in channels");
    v("num_layers", num_layers, "residual blocks per encoder level (decoder: one more)");
    v("attention_resolutions", attention_resolutions, "levels with attention, by resolution");
    v("resolution", resolution, "base resolution that attention_resolutions refers to");
    v("patch_size", patch_size);
    v("patch_type", patch_type, "haar or rearrange");
    v("spatial_compression_ratio", spatial_compression_ratio);
    v("z_channels", z_channels, "channels of the networks' ends");
    v("latent_channels", latent_channels);
    v("levels", levels, "levels of each quantised channel; [] for a continuous tokenizer");
    v("scaling_factor", stats.scaling_factor);
    v("latents_mean", stats.mean);
    v("latents_std", stats.std);
  }

  /// Reads and checks. Throws Error when the values do not make a network; `where` names the file.
  static ImageTokenizerConfig from_json(const Json& json, const std::string& where);
  void check(const std::string& where) const;
  int64_t halvings() const;  ///< log2(spatial_compression_ratio / patch_size)
};

/// Stem, levels, middle and head in the order of either direction.
class ImageEncoderImpl : public torch::nn::Module {
 public:
  explicit ImageEncoderImpl(const ImageTokenizerConfig& config);
  Tensor forward(const Tensor& patches, const BlockCall& call);

 private:
  FrameConv2d conv_in_, conv_out_;
  torch::nn::ModuleList down_blocks_;
  ImageMidBlock mid_block_;
  ImageNorm norm_out_;
};
TORCH_MODULE(ImageEncoder);

class ImageDecoderImpl : public torch::nn::Module {
 public:
  explicit ImageDecoderImpl(const ImageTokenizerConfig& config);
  Tensor forward(const Tensor& latents, const BlockCall& call);

 private:
  FrameConv2d conv_in_, conv_out_;
  ImageMidBlock mid_block_;
  torch::nn::ModuleList up_blocks_;
  ImageNorm norm_out_;
};
TORCH_MODULE(ImageDecoder);

class CosmosImageTokenizer : public ConfiguredTokenizer<ImageTokenizerConfig> {
 public:
  explicit CosmosImageTokenizer(const Json& config, const std::string& where = "config");

  std::string class_name() const override {
    return config_.levels.empty() ? "CosmosImageTokenizer" : "CosmosDiscreteImageTokenizer";
  }
  int64_t video_channels() const override { return config_.in_channels; }
  int64_t latent_channels() const override { return config_.latent_channels; }
  bool is_image_tokenizer() const override { return true; }
  const std::vector<int64_t>& code_levels() const override { return config_.levels; }

 protected:
  Tensor encode_chunk(const Tensor& video, TimeCache* cache) override;
  Tensor decode_chunk(const Tensor& latents, TimeCache* cache) override;
  Posterior posterior(const Tensor& moments) const override;

 private:
  PatchType patch_type() const;

  ImageEncoder encoder_{nullptr};
  ImageDecoder decoder_{nullptr};
  FrameConv2d quant_conv_{nullptr}, post_quant_conv_{nullptr};
};

}  // namespace cosmos::modules
