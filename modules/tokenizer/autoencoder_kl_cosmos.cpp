#include "modules/tokenizer/autoencoder_kl_cosmos.h"

#include "modules/tokenizer/cosmos_levels.h"
#include "modules/tokenizer/walk.h"

namespace cosmos::modules {
namespace {

PatchType patch_type_of(const CosmosVaeConfig& config) {
  return config.patch_type == "haar" ? PatchType::kHaar : PatchType::kRearrange;
}

int64_t cube(int64_t p) {
  return p * p * p;
}

bool first_chunk(const TimeCache* cache) {
  return !cache || cache->first_chunk();
}

}  // namespace

CosmosLevelImpl::CosmosLevelImpl(const Options& options) {
  for (int64_t i = 0; i < options.layers; ++i) {
    resnets_->push_back(CosmosResnet(i == 0 ? options.in : options.out, options.out));
    if (!options.attention) continue;
    attentions_->push_back(CosmosAttention(options.out, AttentionAxis::kSpace));
    temp_attentions_->push_back(CosmosAttention(options.out, AttentionAxis::kTime));
  }
  register_module("resnets", resnets_);
  register_module("attentions", attentions_);
  register_module("temp_attentions", temp_attentions_);
  if (options.resample == Options::kDown) {
    down_ = CosmosDownsample(options.out, options.space, options.time);
    register_module("downsamplers", torch::nn::ModuleList(down_));
  } else if (options.resample == Options::kUp) {
    up_ = CosmosUpsample(options.out, options.space, options.time);
    register_module("upsamplers", torch::nn::ModuleList(up_));
  }
}

Tensor CosmosLevelImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = x;
  for (std::size_t i = 0; i < resnets_->size(); ++i) {
    h = resnets_->at<CosmosResnetImpl>(i).forward(h, cache);
    if (attentions_->is_empty()) continue;
    h = attentions_->at<CosmosAttentionImpl>(i).forward(h, cache);
    h = temp_attentions_->at<CosmosAttentionImpl>(i).forward(h, cache);
  }
  if (down_) h = down_->forward(h, cache);
  if (up_) h = up_->forward(h, cache);
  return h;
}

CosmosMidBlockImpl::CosmosMidBlockImpl(int64_t channels)
    : first_(channels, channels),
      last_(channels, channels),
      space_(channels, AttentionAxis::kSpace),
      time_(channels, AttentionAxis::kTime) {
  register_module("resnets", torch::nn::ModuleList(first_, last_));
  register_module("attentions", torch::nn::ModuleList(space_));
  register_module("temp_attentions", torch::nn::ModuleList(time_));
}

Tensor CosmosMidBlockImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = first_->forward(x, cache);
  h = time_->forward(space_->forward(h, cache), cache);
  return last_->forward(h, cache);
}

CosmosEncoderImpl::CosmosEncoderImpl(const CosmosVaeConfig& c)
    : patch_size_(c.patch_size),
      patch_type_(patch_type_of(c)),
      conv_in_(c.in_channels * cube(c.patch_size), c.encoder_block_out_channels.front()),
      conv_out_(c.encoder_block_out_channels.back(), c.network_channels()),
      mid_block_(c.encoder_block_out_channels.back()),
      norm_out_(c.encoder_block_out_channels.back()) {
  register_module("conv_in", conv_in_);
  for (const auto& level : encoder_levels(c)) down_blocks_->push_back(CosmosLevel(level));
  register_module("down_blocks", down_blocks_);
  register_module("mid_block", mid_block_);
  register_module("norm_out", norm_out_);
  register_module("conv_out", conv_out_);
}

Tensor CosmosEncoderImpl::forward(const Tensor& video, TimeCache* cache, const BlockCall& call) {
  return Walk(call, "encoder.", patchify(video, patch_size_, patch_type_, first_chunk(cache)))
      .through("conv_in", *conv_in_, cache)
      .through_all<CosmosLevelImpl>("down_blocks", *down_blocks_, cache)
      .through("mid_block", *mid_block_, cache)
      .by("norm_out", *norm_out_, [&](const Tensor& x) { return silu_of(norm_out_->forward(x)); })
      .through("conv_out", *conv_out_, cache)
      .result();
}

CosmosDecoderImpl::CosmosDecoderImpl(const CosmosVaeConfig& c)
    : patch_size_(c.patch_size),
      patch_type_(patch_type_of(c)),
      conv_in_(c.network_channels(), c.decode_block_out_channels.back()),
      conv_out_(c.decode_block_out_channels.front(), c.out_channels * cube(c.patch_size)),
      mid_block_(c.decode_block_out_channels.back()),
      norm_out_(c.decode_block_out_channels.front()) {
  register_module("conv_in", conv_in_);
  register_module("mid_block", mid_block_);
  for (const auto& level : decoder_levels(c)) up_blocks_->push_back(CosmosLevel(level));
  register_module("up_blocks", up_blocks_);
  register_module("norm_out", norm_out_);
  register_module("conv_out", conv_out_);
}

Tensor CosmosDecoderImpl::forward(const Tensor& latents, TimeCache* cache, const BlockCall& call) {
  const Tensor patches = Walk(call, "decoder.", latents)
                             .through("conv_in", *conv_in_, cache)
                             .through("mid_block", *mid_block_, cache)
                             .through_all<CosmosLevelImpl>("up_blocks", *up_blocks_, cache)
                             .by("norm_out", *norm_out_,
                                 [&](const Tensor& x) { return silu_of(norm_out_->forward(x)); })
                             .through("conv_out", *conv_out_, cache)
                             .result();
  return unpatchify(patches, patch_size_, patch_type_, first_chunk(cache));
}

AutoencoderKLCosmos::AutoencoderKLCosmos(const Json& config, const std::string& where)
    : AutoencoderKLCosmos(config, read_tokenizer_config<CosmosVaeConfig>(config, where)) {}

AutoencoderKLCosmos::AutoencoderKLCosmos(Json source, CosmosVaeConfig config)
    : ConfiguredTokenizer(std::move(source), std::move(config)) {
  temporal_ = spatial_ = config_.patch_size;
  for (const auto& level : encoder_levels(config_)) {
    if (level.space) spatial_ *= 2;
    if (level.time) temporal_ *= 2;
  }
  const int64_t z = config_.network_channels(), latent = config_.latent_channels;
  encoder_ = register_module("encoder", CosmosEncoder(config_));
  decoder_ = register_module("decoder", CosmosDecoder(config_));
  quant_conv_ = register_module("quant_conv", cosmos_point_conv(z, latent));
  post_quant_conv_ = register_module("post_quant_conv", cosmos_point_conv(latent, z));
}

Tensor AutoencoderKLCosmos::encode_chunk(const Tensor& video, TimeCache* cache) {
  const BlockCall call = block_call();
  Walk walk(call, "", encoder_->forward(video, cache, call));
  return channels_to_front(walk.through("quant_conv", *quant_conv_).result());
}

Tensor AutoencoderKLCosmos::decode_chunk(const Tensor& latents, TimeCache* cache) {
  const BlockCall call = block_call();
  Walk walk(call, "", channels_to_back(latents));
  return decoder_->forward(walk.through("post_quant_conv", *post_quant_conv_).result(), cache,
                           call);
}

}  // namespace cosmos::modules
