#include "modules/tokenizer/image_tokenizer.h"

#include <algorithm>

#include "modules/tokenizer/fsq_codes.h"
#include "modules/tokenizer/walk.h"

namespace cosmos::modules {
namespace {

bool is_power_of_two(int64_t n) {
  return n >= 1 && (n & (n - 1)) == 0;
}

int64_t square(int64_t n) {
  return n * n;
}

int64_t last_width(const ImageTokenizerConfig& c) {
  return c.channels * c.channel_multipliers.back();
}

bool attends(const ImageTokenizerConfig& c, int64_t resolution) {
  const auto& list = c.attention_resolutions;
  return std::find(list.begin(), list.end(), resolution) != list.end();
}

std::vector<ImageLevelImpl::Options> encoder_levels(const ImageTokenizerConfig& c) {
  std::vector<ImageLevelImpl::Options> levels;
  int64_t width = c.channels, resolution = c.resolution / c.patch_size, left = c.halvings();
  for (const int64_t multiplier : c.channel_multipliers) {
    ImageLevelImpl::Options level{.in = width,
                                  .out = c.channels * multiplier,
                                  .layers = c.num_layers,
                                  .attention = attends(c, resolution)};
    if (left-- > 0) {
      level.scale = ImageScale::kHalve;
      resolution /= 2;
    }
    width = level.out;
    levels.push_back(level);
  }
  return levels;
}

// From the coarsest level on; as the encoder's halvings, the doublings come first.
std::vector<ImageLevelImpl::Options> decoder_levels(const ImageTokenizerConfig& c) {
  std::vector<ImageLevelImpl::Options> levels;
  const auto count = static_cast<int64_t>(c.channel_multipliers.size());
  int64_t width = last_width(c), resolution = (c.resolution / c.patch_size) >> (count - 1);
  for (int64_t i = count - 1; i >= 0; --i) {
    ImageLevelImpl::Options level{
        .in = width,
        .out = c.channels * c.channel_multipliers[static_cast<std::size_t>(i)],
        .layers = c.num_layers + 1,
        .attention = attends(c, resolution)};
    if (i >= count - c.halvings()) {
      level.scale = ImageScale::kDouble;
      resolution *= 2;
    }
    width = level.out;
    levels.push_back(level);
  }
  return levels;
}

}  // namespace

int64_t ImageTokenizerConfig::halvings() const {
  int64_t count = 0;
  for (int64_t ratio = spatial_compression_ratio / patch_size; ratio > 1; ratio /= 2) ++count;
  return count;
}

void ImageTokenizerConfig::check(const std::string& where) const {
  require(patch_type == "haar" || patch_type == "rearrange", where,
          ": patch_type: expected haar or rearrange, got \"", patch_type, "\"");
  require(is_power_of_two(patch_size) && is_power_of_two(spatial_compression_ratio) &&
              spatial_compression_ratio >= patch_size,
          where, ": patch_size and spatial_compression_ratio must be powers of two, the second no ",
          "smaller than the first");
  require(!channel_multipliers.empty() &&
              halvings() <= static_cast<int64_t>(channel_multipliers.size()),
          where, ": channel_multipliers: ", channel_multipliers.size(), " levels for ", halvings(),
          " halvings");
  require(num_layers >= 1 && in_channels >= 1 && out_channels >= 1 && z_channels >= 1 &&
              latent_channels >= 1,
          where, ": num_layers and channels must be at least 1");
  require(channels >= 1 && channels % ImageNormImpl::kGroups == 0, where,
          ": channels: expected a multiple of ", ImageNormImpl::kGroups, ", got ", channels);
  for (const int64_t multiplier : channel_multipliers)
    require(multiplier >= 1, where, ": channel_multipliers must be at least 1");
  if (!levels.empty()) check_levels(levels, where);
}

ImageTokenizerConfig ImageTokenizerConfig::from_json(const Json& json, const std::string& where) {
  ImageTokenizerConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  if (!config.levels.empty()) config.latent_channels = static_cast<int64_t>(config.levels.size());
  config.check(where);
  return config;
}

ImageEncoderImpl::ImageEncoderImpl(const ImageTokenizerConfig& c)
    : conv_in_(c.in_channels * square(c.patch_size), c.channels, 3, 1, 1),
      conv_out_(last_width(c), c.z_channels, 3, 1, 1),
      mid_block_(last_width(c)),
      norm_out_(last_width(c)) {
  register_module("conv_in", conv_in_);
  for (const auto& level : encoder_levels(c)) down_blocks_->push_back(ImageLevel(level));
  register_module("down_blocks", down_blocks_);
  register_module("mid_block", mid_block_);
  register_module("norm_out", norm_out_);
  register_module("conv_out", conv_out_);
}

Tensor ImageEncoderImpl::forward(const Tensor& patches, const BlockCall& call) {
  return Walk(call, "encoder.", patches)
      .through("conv_in", *conv_in_)
      .through_all<ImageLevelImpl>("down_blocks", *down_blocks_)
      .through("mid_block", *mid_block_)
      .by("norm_out", *norm_out_, [&](const Tensor& x) { return silu_of(norm_out_->forward(x)); })
      .through("conv_out", *conv_out_)
      .result();
}

ImageDecoderImpl::ImageDecoderImpl(const ImageTokenizerConfig& c)
    : conv_in_(c.z_channels, last_width(c), 3, 1, 1),
      conv_out_(c.channels * c.channel_multipliers.front(), c.out_channels * square(c.patch_size),
                3, 1, 1),
      mid_block_(last_width(c)),
      norm_out_(c.channels * c.channel_multipliers.front()) {
  register_module("conv_in", conv_in_);
  register_module("mid_block", mid_block_);
  for (const auto& level : decoder_levels(c)) up_blocks_->push_back(ImageLevel(level));
  register_module("up_blocks", up_blocks_);
  register_module("norm_out", norm_out_);
  register_module("conv_out", conv_out_);
}

Tensor ImageDecoderImpl::forward(const Tensor& latents, const BlockCall& call) {
  return Walk(call, "decoder.", latents)
      .through("conv_in", *conv_in_)
      .through("mid_block", *mid_block_)
      .through_all<ImageLevelImpl>("up_blocks", *up_blocks_)
      .by("norm_out", *norm_out_, [&](const Tensor& x) { return silu_of(norm_out_->forward(x)); })
      .through("conv_out", *conv_out_)
      .result();
}

CosmosImageTokenizer::CosmosImageTokenizer(const Json& config, const std::string& where)
    : ConfiguredTokenizer(config, ImageTokenizerConfig::from_json(config, where)) {
  spatial_ = config_.spatial_compression_ratio;
  const int64_t z = config_.z_channels, latent = config_.latent_channels;
  encoder_ = register_module("encoder", ImageEncoder(config_));
  decoder_ = register_module("decoder", ImageDecoder(config_));
  quant_conv_ = register_module("quant_conv", FrameConv2d(z, latent, 1));
  post_quant_conv_ = register_module("post_quant_conv", FrameConv2d(latent, z, 1));
}

PatchType CosmosImageTokenizer::patch_type() const {
  return config_.patch_type == "haar" ? PatchType::kHaar : PatchType::kRearrange;
}

Tensor CosmosImageTokenizer::encode_chunk(const Tensor& video, TimeCache*) {
  const BlockCall call = block_call();
  const Tensor patches = patchify_images(video, config_.patch_size, patch_type());
  Walk walk(call, "", encoder_->forward(patches, call));
  return channels_to_front(walk.through("quant_conv", *quant_conv_).result());
}

Tensor CosmosImageTokenizer::decode_chunk(const Tensor& latents, TimeCache*) {
  const BlockCall call = block_call();
  Walk walk(call, "", channels_to_back(latents));
  walk.through("post_quant_conv", *post_quant_conv_);
  return unpatchify_images(decoder_->forward(walk.result(), call), config_.patch_size,
                           patch_type());
}

Posterior CosmosImageTokenizer::posterior(const Tensor& moments) const {
  if (config_.levels.empty()) return {.mean = moments, .logvar = {}};
  return {.mean = quantize(moments, config_.levels), .logvar = {}, .quantized = true};
}

}  // namespace cosmos::modules
