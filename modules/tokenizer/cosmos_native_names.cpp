#include <algorithm>

#include "modules/tokenizer/native_names.h"

namespace cosmos::modules {
namespace {

constexpr const char* kConv = ".conv3d";  // causal convolutions wrap one

void add_conv(NameMap& names, const std::string& native, const std::string& hf) {
  names.add_layer(native + kConv, hf);
}

// A convolution over space, then one over time.
void add_factorized(NameMap& names, const std::string& native, const std::string& hf) {
  add_conv(names, native + ".0", hf + ".conv_s");
  add_conv(names, native + ".1", hf + ".conv_t");
}

NameMap residual_names() {
  NameMap names;
  for (const std::string i : {"1", "2"}) {
    names.add_layer("norm" + i + ".norm", "norm" + i + ".norm");
    add_factorized(names, "conv" + i, "conv" + i);
  }
  add_conv(names, "nin_shortcut", "conv_shortcut");
  return names;
}

NameMap attention_names() {
  NameMap names;
  names.add_layer("norm.norm", "norm.norm");
  for (const std::string part : {"q", "k", "v"}) add_conv(names, part, "to_" + part);
  add_conv(names, "proj_out", "to_out.0");
  return names;
}

NameMap level_names(const std::string& native_resample, const std::string& hf_resample) {
  NameMap names;
  names.add("block.*", "resnets.*", residual_names());
  names.add("attn.*.0", "attentions.*", attention_names());
  names.add("attn.*.1", "temp_attentions.*", attention_names());
  for (const std::string conv : {"conv1", "conv2", "conv3"})
    add_conv(names, native_resample + "." + conv, hf_resample + ".0." + conv);
  return names;
}

NameMap ends() {
  NameMap names;
  add_factorized(names, "conv_in", "conv_in");
  add_factorized(names, "conv_out", "conv_out");
  names.add_layer("norm_out.norm", "norm_out.norm");
  names.add("mid.block_1", "mid_block.resnets.0", residual_names());
  names.add("mid.attn_1.0", "mid_block.attentions.0", attention_names());
  names.add("mid.attn_1.1", "mid_block.temp_attentions.0", attention_names());
  names.add("mid.block_2", "mid_block.resnets.1", residual_names());
  return names;
}

class Shapes {
 public:
  Shapes(const LazyTensors& tensors, const std::string& where) : tensors_(tensors), where_(where) {}

  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  const std::vector<int64_t>& of(const std::string& name) const {
    const auto found = tensors_.find(name);
    require(found != tensors_.end() && found->second.shape.size() >= 2, where_, ": ", name,
            " is missing; not a whole Cosmos tokenizer (encoder and decoder are needed)");
    return found->second.shape;
  }
  /// Widths of the levels below `side`, from its stem on: [stem, level 0, level 1, ...].
  std::vector<int64_t> widths(const std::string& side, const std::string& blocks) const {
    std::vector<int64_t> widths = {of(side + ".conv_in.conv_t.weight")[0]};
    for (int64_t i = 0;; ++i) {
      const std::string first =
          side + "." + blocks + "." + std::to_string(i) + ".resnets.0.conv1.conv_s.weight";
      if (!has(first)) return widths;
      widths.push_back(of(first)[0]);
    }
  }
  int64_t resnets() const {
    int64_t count = 0;
    while (has("encoder.down_blocks.0.resnets." + std::to_string(count) + ".conv1.conv_s.weight"))
      ++count;
    return count;
  }
  /// Resolutions at which the encoder's levels attend, of a config's base resolution.
  std::vector<int64_t> attention(int64_t resolution) const {
    std::vector<int64_t> found;
    for (int64_t i = 0;; ++i, resolution /= 2) {
      const std::string level = "encoder.down_blocks." + std::to_string(i) + ".";
      if (!has(level + "resnets.0.conv1.conv_s.weight")) return found;
      if (has(level + "attentions.0.to_q.weight")) found.push_back(resolution);
    }
  }
  /// By how much the encoder's levels shrink: `conv` is conv1 over space, conv2 over time.
  int64_t shrink(const std::string& conv) const {
    int64_t factor = 1;
    for (int64_t i = 0;; ++i) {
      const std::string level = "encoder.down_blocks." + std::to_string(i) + ".";
      if (!has(level + "resnets.0.conv1.conv_s.weight")) return factor;
      if (has(level + "downsamplers.0." + conv + ".weight")) factor *= 2;
    }
  }

 private:
  const LazyTensors& tensors_;
  const std::string& where_;
};

}  // namespace

NameMap cosmos_native_names(int64_t levels) {
  NameMap names;
  names.add("encoder", "encoder", ends());
  names.add("decoder", "decoder", ends());
  names.add("encoder.down.*", "encoder.down_blocks.*", level_names("downsample", "downsamplers"));
  for (int64_t i = 0; i < levels; ++i)
    names.add("decoder.up." + std::to_string(i),
              "decoder.up_blocks." + std::to_string(levels - 1 - i),
              level_names("upsample", "upsamplers"));
  add_conv(names, "quant_conv", "quant_conv");
  add_conv(names, "post_quant_conv", "post_quant_conv");
  return names;
}

CosmosVaeConfig cosmos_config_of(const LazyTensors& tensors, const std::string& where) {
  CosmosVaeConfig c;
  const Shapes shapes(tensors, where);
  c.encoder_block_out_channels = shapes.widths("encoder", "down_blocks");
  c.decode_block_out_channels = shapes.widths("decoder", "up_blocks");
  std::reverse(c.decode_block_out_channels.begin(), c.decode_block_out_channels.end());
  c.latent_channels = shapes.of("quant_conv.weight")[0];
  const int64_t ends = shapes.of("quant_conv.weight")[1];
  if (ends != c.latent_channels) c.z_channels = ends;
  c.num_layers = shapes.resnets();
  // The first convolution sees channels x patch^3. RGB in and out.
  const int64_t seen = shapes.of("encoder.conv_in.conv_s.weight")[1];
  c.patch_size = 1;
  while (c.in_channels * c.patch_size * c.patch_size * c.patch_size < seen) c.patch_size *= 2;
  require(c.in_channels * c.patch_size * c.patch_size * c.patch_size == seen, where,
          ": the encoder sees ", seen, " channels, expected 3 times the cube of a power of two");
  const auto attention = shapes.attention(c.resolution / c.patch_size);
  if (!attention.empty()) c.attention_resolutions = attention;
  c.spatial_compression_ratio = c.patch_size * shapes.shrink("conv1");
  c.temporal_compression_ratio = c.patch_size * shapes.shrink("conv2");
  c.stats.mean.reset();  // in a file of its own (mean_std.pt), if anywhere
  c.stats.std.reset();
  c.check(where);
  return c;
}

std::vector<int64_t> quantizer_levels(const LazyTensors& native, const std::string& where) {
  for (const char* name : {"quantizer._levels", "inv_quant.quantizer._levels"}) {
    const auto found = native.find(name);
    if (found == native.end()) continue;
    require(found->second.shape.size() == 1 && found->second.numel() <= 16, where, ": ", name,
            ": expected up to 16 levels");
    const Tensor levels = found->second.read().to(torch::kInt64).contiguous();
    const int64_t* first = levels.data_ptr<int64_t>();
    return {first, first + levels.numel()};
  }
  return {};
}

std::string tokenizer_superfluous(const std::string& native) {
  for (const char* buffer : {"wavelets", "_arange", "patch_size_buffer"})
    if (native.find(buffer) != std::string::npos) return "constant of the patches, computed";
  if (native.rfind("quantizer.", 0) == 0 || native.rfind("inv_quant.", 0) == 0)
    return "constant of the quantizer, computed";
  return "";
}

}  // namespace cosmos::modules
