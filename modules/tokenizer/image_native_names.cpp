#include "modules/tokenizer/native_names.h"

namespace cosmos::modules {
namespace {

NameMap residual_names() {
  NameMap names;
  for (const std::string layer : {"norm1", "conv1", "norm2", "conv2"})
    names.add_layer(layer, layer);
  names.add_layer("nin_shortcut", "conv_shortcut");
  return names;
}

NameMap attention_names() {
  NameMap names;
  names.add_layer("norm", "norm");
  for (const std::string part : {"q", "k", "v"}) names.add_layer(part, "to_" + part);
  names.add_layer("proj_out", "to_out.0");
  return names;
}

NameMap level_names(const std::string& native_resample, const std::string& hf_resample) {
  NameMap names;
  names.add("block.*", "resnets.*", residual_names());
  names.add("attn.*", "attentions.*", attention_names());
  names.add_layer(native_resample + ".conv", hf_resample + ".0.conv");
  return names;
}

NameMap ends() {
  NameMap names;
  for (const std::string layer : {"conv_in", "norm_out", "conv_out"}) names.add_layer(layer, layer);
  names.add("mid.block_1", "mid_block.resnets.0", residual_names());
  names.add("mid.attn_1", "mid_block.attentions.0", attention_names());
  names.add("mid.block_2", "mid_block.resnets.1", residual_names());
  return names;
}

}  // namespace

NameMap image_native_names(int64_t levels) {
  NameMap names;
  names.add("encoder", "encoder", ends());
  names.add("decoder", "decoder", ends());
  names.add("encoder.down.*", "encoder.down_blocks.*", level_names("downsample", "downsamplers"));
  for (int64_t i = 0; i < levels; ++i)
    names.add("decoder.up." + std::to_string(i),
              "decoder.up_blocks." + std::to_string(levels - 1 - i),
              level_names("upsample", "upsamplers"));
  names.add_layer("quant_conv", "quant_conv");
  names.add_layer("post_quant_conv", "post_quant_conv");
  return names;
}

ImageTokenizerConfig image_config_of(const LazyTensors& tensors, const std::vector<int64_t>& levels,
                                     const std::string& where) {
  ImageTokenizerConfig c;
  const auto has = [&](const std::string& name) { return tensors.count(name) > 0; };
  const auto shape = [&](const std::string& name) -> const std::vector<int64_t>& {
    const auto found = tensors.find(name);
    require(found != tensors.end() && found->second.shape.size() == 4, where, ": ", name,
            " is missing; not a whole image tokenizer (encoder and decoder are needed)");
    return found->second.shape;
  };
  c.channels = shape("encoder.conv_in.weight")[0];
  require(c.channels > 0, where, ": encoder.conv_in has no outputs");
  const int64_t seen = shape("encoder.conv_in.weight")[1];
  c.patch_size = 1;
  while (c.in_channels * c.patch_size * c.patch_size < seen) c.patch_size *= 2;
  require(c.in_channels * c.patch_size * c.patch_size == seen, where, ": the encoder sees ", seen,
          " channels, expected 3 times the square of a power of two");
  c.channel_multipliers.clear();
  std::vector<int64_t> attention;
  int64_t halvings = 0;
  for (int64_t i = 0;; ++i) {
    const std::string level = "encoder.down_blocks." + std::to_string(i) + ".";
    if (!has(level + "resnets.0.conv1.weight")) break;
    const int64_t width = shape(level + "resnets.0.conv1.weight")[0];
    require(width % c.channels == 0, where, ": level ", i, " is ", width, " wide, no multiple of ",
            c.channels);
    c.channel_multipliers.push_back(width / c.channels);
    if (has(level + "attentions.0.to_q.weight"))
      attention.push_back((c.resolution / c.patch_size) >> halvings);
    if (has(level + "downsamplers.0.conv.weight")) ++halvings;
  }
  c.num_layers = 0;
  while (has("encoder.down_blocks.0.resnets." + std::to_string(c.num_layers) + ".conv1.weight"))
    ++c.num_layers;
  if (!attention.empty()) c.attention_resolutions = attention;
  c.spatial_compression_ratio = c.patch_size << halvings;
  c.z_channels = shape("encoder.conv_out.weight")[0];
  c.latent_channels = shape("quant_conv.weight")[0];
  c.levels = levels;
  c.check(where);
  return c;
}

}  // namespace cosmos::modules
