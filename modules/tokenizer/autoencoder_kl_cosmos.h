#pragma once

// AutoencoderKLCosmos, the continuous tokenizer of Cosmos 1 ("Cosmos World Foundation Model
// Platform", 2501.03575; diffusers autoencoder_kl_cosmos.py): space-time Haar patches, causal
// convolutions factored into space and time, attention over space and over past frames in the
// middle. The encoder gives a point, no distribution.

#include <memory>

#include "modules/tokenizer/configured_tokenizer.h"
#include "modules/tokenizer/cosmos_blocks.h"
#include "modules/tokenizer/cosmos_config.h"
#include "modules/tokenizer/patches.h"

namespace cosmos::modules {

/// Residual blocks, each followed by attention over space and time where the level has it, then an
/// optional change of resolution. `Resample` is CosmosDownsample or CosmosUpsample.
class CosmosLevelImpl : public torch::nn::Module {
 public:
  struct Options {
    int64_t in = 0, out = 0, layers = 0;
    bool attention = false;
    enum { kNone, kDown, kUp } resample = kNone;
    bool space = false, time = false;  ///< what the resampler changes
  };
  explicit CosmosLevelImpl(const Options& options);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  torch::nn::ModuleList resnets_, attentions_, temp_attentions_;
  CosmosDownsample down_{nullptr};
  CosmosUpsample up_{nullptr};
};
TORCH_MODULE(CosmosLevel);

/// resnet, attention over space, attention over time, resnet.
class CosmosMidBlockImpl : public torch::nn::Module {
 public:
  explicit CosmosMidBlockImpl(int64_t channels);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  CosmosResnet first_, last_;
  CosmosAttention space_, time_;
};
TORCH_MODULE(CosmosMidBlock);

/// video [B, C, T, H, W] -> [B, t, h, w, z]
class CosmosEncoderImpl : public torch::nn::Module {
 public:
  explicit CosmosEncoderImpl(const CosmosVaeConfig& config);
  Tensor forward(const Tensor& video, TimeCache* cache, const BlockCall& call);

 private:
  int64_t patch_size_;
  PatchType patch_type_;
  SpaceTimeConv conv_in_, conv_out_;
  torch::nn::ModuleList down_blocks_;
  CosmosMidBlock mid_block_;
  FrameNorm norm_out_;
};
TORCH_MODULE(CosmosEncoder);

/// [B, t, h, w, z] -> video [B, C, T, H, W]
class CosmosDecoderImpl : public torch::nn::Module {
 public:
  explicit CosmosDecoderImpl(const CosmosVaeConfig& config);
  Tensor forward(const Tensor& latents, TimeCache* cache, const BlockCall& call);

 private:
  int64_t patch_size_;
  PatchType patch_type_;
  SpaceTimeConv conv_in_, conv_out_;
  CosmosMidBlock mid_block_;
  torch::nn::ModuleList up_blocks_;
  FrameNorm norm_out_;
};
TORCH_MODULE(CosmosDecoder);

class AutoencoderKLCosmos : public ConfiguredTokenizer<CosmosVaeConfig> {
 public:
  /// Throws Error when the config does not make a network; `where` names it. The compression is
  /// what the encoder's levels really do, which the config's ratios only ask for.
  explicit AutoencoderKLCosmos(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "AutoencoderKLCosmos"; }
  int64_t video_channels() const override { return config_.in_channels; }
  int64_t latent_channels() const override { return config_.latent_channels; }

 protected:
  AutoencoderKLCosmos(Json source, CosmosVaeConfig config);

  Tensor encode_chunk(const Tensor& video, TimeCache* cache) override;
  Tensor decode_chunk(const Tensor& latents, TimeCache* cache) override;
  Posterior posterior(const Tensor& moments) const override {
    return {.mean = moments, .logvar = {}};
  }

 private:
  CosmosEncoder encoder_{nullptr};
  CosmosDecoder decoder_{nullptr};
  CausalConv3d quant_conv_{nullptr}, post_quant_conv_{nullptr};
};

}  // namespace cosmos::modules
