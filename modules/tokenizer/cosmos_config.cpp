#include "modules/tokenizer/cosmos_config.h"

#include <algorithm>

#include "modules/tokenizer/cosmos_levels.h"

namespace cosmos::modules {
namespace {

int64_t log2_of(int64_t n) {
  int64_t bits = 0;
  while (n > 1) n /= 2, ++bits;
  return bits;
}

bool has(const std::vector<int64_t>& list, int64_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

void CosmosVaeConfig::check(const std::string& where) const {
  require(patch_type == "haar" || patch_type == "rearrange", where,
          ": patch_type: expected haar or ", "rearrange, got \"", patch_type, "\"");
  require(patch_size >= 1 && (patch_size & (patch_size - 1)) == 0, where,
          ": patch_size: expected a power of two, got ", patch_size);
  require(num_layers >= 0, where, ": num_layers: expected at least 0, got ", num_layers);
  require(in_channels >= 1 && out_channels >= 1 && latent_channels >= 1, where,
          ": in_channels, out_channels and latent_channels must be at least 1");
  require(spatial_compression_ratio >= 1 && temporal_compression_ratio >= 1, where,
          ": compression ratios must be at least 1");
  if (num_layers == 0)  // levels of the encoder then have nothing that changes the width
    for (int64_t width : encoder_block_out_channels)
      require(width == encoder_block_out_channels.front(), where,
              ": num_layers: 0 needs encoder_block_out_channels to be all equal");
  for (const auto* widths : {&encoder_block_out_channels, &decode_block_out_channels}) {
    require(widths->size() >= 2, where, ": block_out_channels: expected at least 2 widths, got ",
            widths->size());
    for (int64_t width : *widths)
      require(width >= 1, where, ": block_out_channels: ", width, " is not a width");
  }
}

std::vector<CosmosLevelImpl::Options> encoder_levels(const CosmosVaeConfig& c) {
  const auto& widths = c.encoder_block_out_channels;
  const int64_t count = static_cast<int64_t>(widths.size()) - 1, patch = log2_of(c.patch_size);
  const int64_t space = log2_of(c.spatial_compression_ratio) - patch;
  const int64_t time = log2_of(c.temporal_compression_ratio) - patch;
  int64_t resolution = c.resolution / c.patch_size;
  std::vector<CosmosLevelImpl::Options> levels;
  for (int64_t i = 0; i < count; ++i) {
    CosmosLevelImpl::Options level{.in = widths[i],
                                   .out = widths[i + 1],
                                   .layers = c.num_layers,
                                   .attention = has(c.attention_resolutions, resolution)};
    if (i < count - 1) {
      level.resample = CosmosLevelImpl::Options::kDown;
      level.space = i < space;
      level.time = i < time;
      resolution /= 2;
    }
    levels.push_back(level);
  }
  return levels;
}

std::vector<CosmosLevelImpl::Options> decoder_levels(const CosmosVaeConfig& c) {
  const std::vector<int64_t> widths(c.decode_block_out_channels.rbegin(),
                                    c.decode_block_out_channels.rend());
  const int64_t count = static_cast<int64_t>(widths.size()) - 1, patch = log2_of(c.patch_size);
  const int64_t space = log2_of(c.spatial_compression_ratio) - patch;
  const int64_t time = log2_of(c.temporal_compression_ratio) - patch;
  int64_t resolution = (c.resolution / c.patch_size) >> (count - 1);
  std::vector<CosmosLevelImpl::Options> levels;
  for (int64_t i = 0; i < count; ++i) {
    CosmosLevelImpl::Options level{.in = widths[i],
                                   .out = widths[i + 1],
                                   .layers = c.num_layers + 1,
                                   .attention = has(c.attention_resolutions, resolution)};
    if (i < count - 1) {
      level.resample = CosmosLevelImpl::Options::kUp;
      level.time = 0 < i && i < time + 1;
      level.space = level.time || (i < space && space > time);
      resolution *= 2;
    }
    levels.push_back(level);
  }
  return levels;
}

}  // namespace cosmos::modules
