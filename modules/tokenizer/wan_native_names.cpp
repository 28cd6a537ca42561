#include "modules/tokenizer/native_names.h"

namespace cosmos::modules {
namespace {

NameMap residual_names() {
  NameMap names;
  names.add("residual.0.gamma", "norm1.gamma");
  names.add_layer("residual.2", "conv1");
  names.add("residual.3.gamma", "norm2.gamma");
  names.add_layer("residual.6", "conv2");
  names.add_layer("shortcut", "conv_shortcut");
  return names;
}

NameMap resample_names() {
  NameMap names;
  names.add_layer("resample.1", "resample.1");
  names.add_layer("time_conv", "time_conv");
  return names;
}

// Stem, middle and head are alike on both sides.
NameMap ends() {
  NameMap names;
  names.add_layer("conv1", "conv_in");
  names.add("middle.0", "mid_block.resnets.0", residual_names());
  names.add("middle.1.norm.gamma", "mid_block.attentions.0.norm.gamma");
  names.add_layer("middle.1.to_qkv", "mid_block.attentions.0.to_qkv");
  names.add_layer("middle.1.proj", "mid_block.attentions.0.proj");
  names.add("middle.2", "mid_block.resnets.1", residual_names());
  names.add("head.0.gamma", "norm_out.gamma");
  names.add_layer("head.2", "conv_out");
  return names;
}

const LazyTensor& need(const LazyTensors& tensors, const std::string& name,
                       const std::string& where) {
  const auto found = tensors.find(name);
  require(found != tensors.end() && !found->second.shape.empty(), where, ": ", name,
          " is missing; not a whole Wan VAE");
  return found->second;
}

}  // namespace

NameMap wan_native_names(int64_t levels, int64_t res_blocks) {
  NameMap names;
  names.add("encoder", "encoder", ends());
  names.add("decoder", "decoder", ends());
  names.add_layer("conv1", "quant_conv");
  names.add_layer("conv2", "post_quant_conv");
  // The encoder is one flat list in both.
  names.add("encoder.downsamples.*", "encoder.down_blocks.*", residual_names());
  names.add("encoder.downsamples.*", "encoder.down_blocks.*", resample_names());
  int64_t flat = 0;
  for (int64_t level = 0; level < levels; ++level) {
    const std::string block = "decoder.up_blocks." + std::to_string(level);
    for (int64_t i = 0; i <= res_blocks; ++i)
      names.add("decoder.upsamples." + std::to_string(flat++),
                block + ".resnets." + std::to_string(i), residual_names());
    if (level + 1 < levels)
      names.add("decoder.upsamples." + std::to_string(flat++), block + ".upsamplers.0",
                resample_names());
  }
  return names;
}

WanVaeConfig wan_config_of(const LazyTensors& tensors, const std::string& where) {
  WanVaeConfig c;
  const auto rows = [&](const std::string& name) { return need(tensors, name, where).shape[0]; };
  const auto has = [&](const std::string& name) { return tensors.count(name) > 0; };
  c.base_dim = rows("encoder.conv_in.weight");
  c.in_channels = need(tensors, "encoder.conv_in.weight", where).shape.at(1);
  c.out_channels = rows("decoder.conv_out.weight");
  c.z_dim = rows("post_quant_conv.weight");
  c.dim_mult.clear();
  c.temperal_downsample.clear();
  int64_t blocks = 0, width = 0;
  for (int64_t i = 0;; ++i) {
    const std::string block = "encoder.down_blocks." + std::to_string(i) + ".";
    const bool residual = has(block + "conv1.weight"), down = has(block + "resample.1.weight");
    if (residual) {
      ++blocks;
      width = rows(block + "conv1.weight");
      continue;
    }
    require(c.base_dim > 0 && width % c.base_dim == 0, where, ": level ", c.dim_mult.size(), " is ",
            width, " wide, no multiple of ", c.base_dim);
    c.dim_mult.push_back(width / c.base_dim);
    if (!down) break;
    c.temperal_downsample.push_back(has(block + "time_conv.weight"));
  }
  c.num_res_blocks = blocks / static_cast<int64_t>(c.dim_mult.size());
  const int64_t decoder_width = rows("decoder.norm_out.gamma");
  if (decoder_width != c.base_dim) c.decoder_base_dim = decoder_width;
  int64_t time = 1, space = 1;
  for (const bool halves : c.temperal_downsample) time *= halves ? 2 : 1, space *= 2;
  c.scale_factor_temporal = time;
  c.scale_factor_spatial = space;
  const auto latent = static_cast<std::size_t>(c.z_dim);
  if (c.stats.mean->size() != latent) {
    c.stats.mean = std::vector<double>(latent, 0);
    c.stats.std = std::vector<double>(latent, 1);
  }
  c.check(where);
  return c;
}

}  // namespace cosmos::modules
