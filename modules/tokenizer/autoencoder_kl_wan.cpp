#include "modules/tokenizer/autoencoder_kl_wan.h"

#include <algorithm>

#include "modules/tokenizer/walk.h"

namespace cosmos::modules {

WanDownLevelImpl::WanDownLevelImpl(const Options& options) : options_(options) {
  const int64_t pooled = options.in * (options.time ? 2 : 1) * (options.space ? 4 : 1);
  require(pooled % options.out == 0, "config: is_residual needs ", pooled,
          " pooled channels to be a multiple of the level's ", options.out, ": change dim_mult");
  for (int64_t i = 0; i < options.blocks; ++i)
    resnets_->push_back(WanResnet(i == 0 ? options.in : options.out, options.out));
  register_module("resnets", resnets_);
  if (options.space)
    downsampler_ = register_module("downsampler", WanDownsample(options.out, options.time));
}

Tensor WanDownLevelImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = x;
  for (std::size_t i = 0; i < resnets_->size(); ++i)
    h = resnets_->at<WanResnetImpl>(i).forward(h, cache);
  if (downsampler_) h = downsampler_->forward(h, cache);
  return h + average_down(x, options_.out, options_.time ? 2 : 1, options_.space ? 2 : 1);
}

WanUpLevelImpl::WanUpLevelImpl(const Options& options) : options_(options) {
  for (int64_t i = 0; i < options.blocks; ++i)
    resnets_->push_back(WanResnet(i == 0 ? options.in : options.out, options.out));
  register_module("resnets", resnets_);
  if (!options.space) return;
  if (options.residual) {
    const int64_t spread = options.out * (options.time ? 8 : 4);
    require(spread % options.in == 0, "config: is_residual needs ", spread,
            " spread channels to be a multiple of the level's ", options.in, ": change dim_mult");
    upsampler_ = register_module("upsampler", WanUpsample(options.out, options.out, options.time));
  } else {
    upsampler_ = WanUpsample(options.out, options.out / 2, options.time);
    register_module("upsamplers", torch::nn::ModuleList(upsampler_));
  }
}

Tensor WanUpLevelImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = x;
  for (std::size_t i = 0; i < resnets_->size(); ++i)
    h = resnets_->at<WanResnetImpl>(i).forward(h, cache);
  if (upsampler_) h = upsampler_->forward(h, cache);
  if (!options_.residual || !options_.space) return h;
  const bool first = !cache || cache->first_chunk();
  return h + duplicate_up(x, options_.out, options_.time ? 2 : 1, 2, first);
}

template <typename Block>
void WanEncoderImpl::add(Block block) {
  down_blocks_->push_back(block);
  layers_.push_back([block](const Tensor& x, TimeCache* cache) mutable {
    if constexpr (std::is_same_v<Block, WanAttention>)
      return block->forward(x);
    else
      return block->forward(x, cache);
  });
}

void WanEncoderImpl::add_levels(const WanVaeConfig& c) {
  int64_t in = c.base_dim;
  double scale = 1;
  for (std::size_t i = 0; i < c.dim_mult.size(); ++i) {
    const int64_t out = c.base_dim * c.dim_mult[i];
    const bool last = i + 1 == c.dim_mult.size(), time = !last && c.temperal_downsample[i];
    if (c.is_residual) {
      add(WanDownLevel(WanDownLevelImpl::Options{
          .in = in, .out = out, .blocks = c.num_res_blocks, .space = !last, .time = time}));
      in = out;
      continue;
    }
    const bool attention =
        std::find(c.attn_scales.begin(), c.attn_scales.end(), scale) != c.attn_scales.end();
    for (int64_t block = 0; block < c.num_res_blocks; ++block, in = out) {
      add(WanResnet(in, out));
      if (attention) add(WanAttention(out));
    }
    if (!last) add(WanDownsample(out, time));
    scale /= 2;
  }
}

WanEncoderImpl::WanEncoderImpl(const WanVaeConfig& c)
    : conv_in_(wan_conv(c.in_channels, c.base_dim)) {
  const int64_t width = c.base_dim * c.dim_mult.back();
  register_module("conv_in", conv_in_);
  add_levels(c);
  register_module("down_blocks", down_blocks_);
  mid_block_ = register_module("mid_block", WanMidBlock(width));
  norm_out_ = register_module("norm_out", ChannelNorm(width));
  conv_out_ = register_module("conv_out", wan_conv(width, 2 * c.z_dim));
}

Tensor WanEncoderImpl::forward(const Tensor& video, TimeCache* cache, const BlockCall& call) {
  Walk walk(call, "encoder.", video);
  walk.through("conv_in", *conv_in_, cache);
  for (std::size_t i = 0; i < layers_.size(); ++i)
    walk.by("down_blocks." + std::to_string(i), *down_blocks_[i],
            [&](const Tensor& x) { return layers_[i](x, cache); });
  return walk.through("mid_block", *mid_block_, cache)
      .by("norm_out", *norm_out_, [&](const Tensor& x) { return norm_out_->activated(x); })
      .through("conv_out", *conv_out_, cache)
      .result();
}

WanDecoderImpl::WanDecoderImpl(const WanVaeConfig& c) {
  const int64_t base = c.decoder_base_dim.value_or(c.base_dim);
  const std::size_t levels = c.dim_mult.size();
  int64_t width = base * c.dim_mult.back();
  conv_in_ = register_module("conv_in", wan_conv(c.z_dim, width));
  mid_block_ = register_module("mid_block", WanMidBlock(width));
  for (std::size_t i = 0; i < levels; ++i) {
    const bool last = i + 1 == levels;
    const int64_t out = base * c.dim_mult[levels - 1 - i];
    require(last || c.is_residual || out % 2 == 0, "config: the decoder halves ", out,
            " channels: base_dim times dim_mult must be even");
    up_blocks_->push_back(WanUpLevel(WanUpLevelImpl::Options{
        .in = width,
        .out = out,
        .blocks = c.num_res_blocks + 1,
        .space = !last,
        .time = !last && c.temperal_downsample[levels - 2 - i],
        .residual = c.is_residual,
    }));
    width = last || c.is_residual ? out : out / 2;
  }
  register_module("up_blocks", up_blocks_);
  norm_out_ = register_module("norm_out", ChannelNorm(width));
  conv_out_ = register_module("conv_out", wan_conv(width, c.out_channels));
}

Tensor WanDecoderImpl::forward(const Tensor& latents, TimeCache* cache, const BlockCall& call) {
  return Walk(call, "decoder.", latents)
      .through("conv_in", *conv_in_, cache)
      .through("mid_block", *mid_block_, cache)
      .through_all<WanUpLevelImpl>("up_blocks", *up_blocks_, cache)
      .by("norm_out", *norm_out_, [&](const Tensor& x) { return norm_out_->activated(x); })
      .through("conv_out", *conv_out_, cache)
      .result();
}

AutoencoderKLWan::AutoencoderKLWan(const Json& config, const std::string& where)
    : ConfiguredTokenizer(config, read_tokenizer_config<WanVaeConfig>(config, where)) {
  spatial_ = config_.patch() << (config_.dim_mult.size() - 1);
  for (bool time : config_.temperal_downsample)
    if (time) temporal_ *= 2;
  const int64_t z = config_.z_dim;
  encoder_ = register_module("encoder", WanEncoder(config_));
  quant_conv_ = register_module("quant_conv", wan_conv(2 * z, 2 * z, 1));
  post_quant_conv_ = register_module("post_quant_conv", wan_conv(z, z, 1));
  decoder_ = register_module("decoder", WanDecoder(config_));
}

void AutoencoderKLWan::refuse_dropout() const {
  // Masks must repeat when a block is recomputed, and no released tokenizer uses dropout.
  require(!is_training() || config_.dropout == 0, "config: dropout: ", config_.dropout,
          " cannot be trained with; set it to 0");
}

Tensor AutoencoderKLWan::encode_chunk(const Tensor& video, TimeCache* cache) {
  refuse_dropout();
  const BlockCall call = block_call();
  Walk walk(call, "", encoder_->forward(patchify_space(video, config_.patch()), cache, call));
  return channels_to_front(walk.through("quant_conv", *quant_conv_).result());
}

Tensor AutoencoderKLWan::decode_chunk(const Tensor& latents, TimeCache* cache) {
  refuse_dropout();
  const BlockCall call = block_call();
  Walk walk(call, "", channels_to_back(latents));
  walk.through("post_quant_conv", *post_quant_conv_);
  return unpatchify_space(decoder_->forward(walk.result(), cache, call), config_.patch());
}

Posterior AutoencoderKLWan::posterior(const Tensor& moments) const {
  const Tensors halves = moments.chunk(2, 1);
  return {.mean = halves[0], .logvar = halves[1].clamp(-30, 20)};
}

}  // namespace cosmos::modules
