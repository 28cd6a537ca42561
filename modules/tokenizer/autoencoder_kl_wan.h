#pragma once

// AutoencoderKLWan, the tokenizer of Cosmos Predict 2 and 2.5 and Transfer 2.5 (Wan 2.1 VAE;
// diffusers autoencoder_kl_wan.py, which runs it in chunks of one latent frame: the whole-clip form
// here gives the same numbers). With is_residual and patch_size it is the Wan 2.2 VAE.

#include <memory>

#include "modules/tokenizer/configured_tokenizer.h"
#include "modules/tokenizer/patches.h"
#include "modules/tokenizer/wan_blocks.h"
#include "modules/tokenizer/wan_config.h"

namespace cosmos::modules {

/// One entry of the encoder's flat list of layers: a residual block, an attention or a
/// downsampling. (Wan 2.1.) The list's position is part of the parameter names.
using WanLayer = std::function<Tensor(const Tensor& x, TimeCache* cache)>;

/// A Wan 2.2 encoder level: residual blocks, downsampling, plus average_down of the level's input.
class WanDownLevelImpl : public torch::nn::Module {
 public:
  struct Options {
    int64_t in = 0, out = 0, blocks = 0;
    bool space = false, time = false;  ///< what the level halves
  };
  explicit WanDownLevelImpl(const Options& options);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  Options options_;
  torch::nn::ModuleList resnets_;
  WanDownsample downsampler_{nullptr};
};
TORCH_MODULE(WanDownLevel);

/// A decoder level: residual blocks, upsampling; in Wan 2.2 plus duplicate_up of the level's input.
class WanUpLevelImpl : public torch::nn::Module {
 public:
  struct Options {
    int64_t in = 0, out = 0, blocks = 0;
    bool space = false, time = false;  ///< what the level doubles
    bool residual = false;             ///< Wan 2.2
  };
  explicit WanUpLevelImpl(const Options& options);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  Options options_;
  torch::nn::ModuleList resnets_;
  WanUpsample upsampler_{nullptr};
};
TORCH_MODULE(WanUpLevel);

/// [B, T, H, W, in_channels] -> [B, t, h, w, 2 z]
class WanEncoderImpl : public torch::nn::Module {
 public:
  explicit WanEncoderImpl(const WanVaeConfig& config);
  Tensor forward(const Tensor& video, TimeCache* cache, const BlockCall& call);

 private:
  void add_levels(const WanVaeConfig& config);
  template <typename Block>
  void add(Block block);

  CausalConv3d conv_in_, conv_out_{nullptr};
  torch::nn::ModuleList down_blocks_;
  std::vector<WanLayer> layers_;  // how to call each of down_blocks_
  WanMidBlock mid_block_{nullptr};
  ChannelNorm norm_out_{nullptr};
};
TORCH_MODULE(WanEncoder);

/// [B, t, h, w, z] -> [B, T, H, W, out_channels]
class WanDecoderImpl : public torch::nn::Module {
 public:
  explicit WanDecoderImpl(const WanVaeConfig& config);
  Tensor forward(const Tensor& latents, TimeCache* cache, const BlockCall& call);

 private:
  CausalConv3d conv_in_{nullptr}, conv_out_{nullptr};
  WanMidBlock mid_block_{nullptr};
  torch::nn::ModuleList up_blocks_;
  ChannelNorm norm_out_{nullptr};
};
TORCH_MODULE(WanDecoder);

class AutoencoderKLWan : public ConfiguredTokenizer<WanVaeConfig> {
 public:
  /// Throws Error when the config does not make a network; `where` names it.
  explicit AutoencoderKLWan(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "AutoencoderKLWan"; }
  int64_t video_channels() const override {
    return config_.in_channels / (config_.patch() * config_.patch());
  }
  int64_t latent_channels() const override { return config_.z_dim; }

 protected:
  Tensor encode_chunk(const Tensor& video, TimeCache* cache) override;
  Tensor decode_chunk(const Tensor& latents, TimeCache* cache) override;
  Posterior posterior(const Tensor& moments) const override;
  Tensor clamp_video(const Tensor& video) const override { return video.clamp(-1, 1); }

 private:
  void refuse_dropout() const;

  WanEncoder encoder_{nullptr};
  WanDecoder decoder_{nullptr};
  CausalConv3d quant_conv_{nullptr}, post_quant_conv_{nullptr};
};

}  // namespace cosmos::modules
