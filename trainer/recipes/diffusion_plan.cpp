// What a training step of the "predict" recipe costs, for --plan and the metrics.

#include "modules/dit/parallel_plan.h"
#include "modules/hub/json_file.h"
#include "trainer/recipes/diffusion.h"

namespace cosmos::trainer {
namespace {

// Values per token and width that one block keeps for backward: inputs of its norms and products,
// queries, keys and values before and after their norms, the MLP's hidden layer before and after
// GELU.
constexpr double kKeptPerToken = 28;

int64_t integer(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

}  // namespace

// The tokenizer's compression is read from its config.json where there is one; 4x8x8 otherwise.
DiffusionRecipe::Geometry DiffusionRecipe::geometry() const {
  int64_t frames = integer(config_.data, "num_frames");
  int64_t height = integer(config_.data, "height"), width = integer(config_.data, "width");
  const auto buckets = config_.data.find("buckets");
  if (height == 0 && buckets != config_.data.end() && !buckets->empty()) {
    height = (*buckets)[0][0].get<int64_t>();
    width = (*buckets)[0][1].get<int64_t>();
  }
  if (frames == 0 || height == 0 || width == 0) return {};
  int64_t time = 4, space = 8;
  if (tokenizer_) {
    time = tokenizer_->temporal_compression();
    space = tokenizer_->spatial_compression();
  } else if (const auto file = std::filesystem::path(config_.tokenizer) / "config.json";
             !config_.tokenizer.empty() && std::filesystem::exists(file)) {
    const Json config = modules::read_json(file);
    if (const int64_t t = integer(config, "temporal_compression_ratio")) time = t;
    if (const int64_t s = integer(config, "spatial_compression_ratio")) space = s;
  }
  return {1 + (frames - 1) / time, height / space, width / space};
}

double DiffusionRecipe::tokens_per_sample() const {
  const Geometry latent = geometry();
  const auto patch = dit_config().patch_size;
  return static_cast<double>(latent.frames / patch[0]) *
         static_cast<double>(latent.height / patch[1]) *
         static_cast<double>(latent.width / patch[2]);
}

// Forward, per block, N tokens, width D, S text tokens of width E: products 2 N (6 + 2 r) D^2,
// self-attention 4 N^2 D, cross-attention 4 N S D and its keys and values 4 S E D. Backward costs
// twice that, and half of it less with an adapter, whose frozen weights need no gradient.
double DiffusionRecipe::flops_per_sample() const {
  const modules::DitConfig config = dit_config();
  const double n = tokens_per_sample(), d = static_cast<double>(config.hidden_size());
  const double s = 512, e = static_cast<double>(config.text_embed_dim);
  const double forward =
      2 * n * (6 + 2 * config.mlp_ratio) * d * d + 4 * n * n * d + 4 * n * s * d + 4 * s * e * d;
  return n > 0 ? static_cast<double>(config.num_layers) * forward * (config_.lora ? 2 : 3) : 0;
}

TokenShape DiffusionRecipe::token_shape() const {
  const modules::DitConfig config = dit_config();
  int64_t patch = 1;
  for (const int64_t size : config.patch_size) patch *= size;
  return {.layers = config.num_layers,
          .heads = config.num_attention_heads,
          .head_dim = config.attention_head_dim,
          .output = patch * config.out_channels};
}

double DiffusionRecipe::activation_bytes_per_sample(bool recompute, int64_t element_bytes) const {
  const modules::DitConfig config = dit_config();
  const double layers = static_cast<double>(config.num_layers);
  const double kept = recompute ? layers + kKeptPerToken : layers * kKeptPerToken;
  return tokens_per_sample() * static_cast<double>(config.hidden_size()) * kept *
         static_cast<double>(element_bytes);
}

double DiffusionRecipe::tensor_elements_per_sample(bool sequence, int64_t recompute) const {
  const modules::DitConfig config = dit_config();
  const auto traffic = modules::tensor_traffic(config, tokens_per_sample(), sequence);
  const int64_t again = recompute > 0 ? (config.num_layers + recompute - 1) / recompute : 0;
  return traffic.block * static_cast<double>(2 * config.num_layers + again) + 2 * traffic.head;
}

}  // namespace cosmos::trainer
