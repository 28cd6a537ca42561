// What a training step of the "predict" recipe costs, for --plan and the metrics.

#include "modules/core/linear.h"
#include "modules/dit/parallel_plan.h"
#include "modules/hub/json_file.h"
#include "trainer/recipes/diffusion.h"

namespace cosmos::trainer {
namespace {

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

// Embeddings of clips are of T5's 512 tokens; samples without any get one of zeros.
int64_t DiffusionRecipe::text_tokens() const {
  namespace fs = std::filesystem;
  const auto path = config_.data.find("path");
  if (path == config_.data.end() || !path->is_string()) return 1;
  const fs::path folder = path->get<std::string>();
  return !fs::exists(folder) || fs::is_directory(folder / "text_embeds") ? 512 : 1;
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

// Tokens N, width D, heads H, r D hidden features; operators as ops/ has them. float32 numbers
// beside: means and deviations of norms, log-sum-exp of attention.
ActivationShape DiffusionRecipe::activation_shape(const modules::Model& model,
                                                  int64_t element_bytes) const {
  const modules::DitConfig config = dit_config();
  const double n = tokens_per_sample();
  if (n == 0) return {};
  const auto bytes = static_cast<double>(element_bytes);
  const double d = n * static_cast<double>(config.hidden_size()) * bytes;
  const double by_head = n * static_cast<double>(config.num_attention_heads) * 4;
  const double hidden = d * config.mlp_ratio;
  const double text =
      static_cast<double>(text_tokens()) * (static_cast<double>(config.hidden_size()) * bytes * 3 +
                                            static_cast<double>(config.num_attention_heads) * 4);
  // A frozen product without adapter keeps no input.
  const auto learns = [&, block = std::string("transformer_blocks.0.")](const char* name) {
    for (const auto& [path, linear] : modules::named_linears(model))
      if (path == block + name) return linear->weight.requires_grad() || linear->adapter();
    return true;
  };
  const double of_heads = learns("attn1.to_q") || learns("attn1.to_k") || learns("attn1.to_v");
  const double inputs = of_heads + learns("attn2.to_q") + learns("ff.net.0.proj");
  ActivationShape shape{.blocks = config.num_layers};
  shape.input.tokens = d;
  shape.attention.sliced = 2 * (d + by_head);
  // Two sums with what was added, what is added last, the norms' numbers; q, k, v, of two
  // attentions, before and after norms, and their results; the MLP's hidden features twice.
  shape.kept.tokens = 6 * d + 6 * n * 4;
  shape.kept.whole = inputs * d;
  shape.kept.sliced = 9 * d + 5 * by_head + hidden * (learns("ff.net.2") ? 2 : 1) + text;
  // The MLP's backward: gradients of its input, output and hidden features.
  shape.working.tokens = 2 * d;
  shape.working.sliced = hidden;
  // The head's input before and after its norm; the clip, its noise, the mix, the answer.
  shape.rest.tokens = 2 * d + 10 * 4 * n * static_cast<double>(token_shape().output);
  return shape;
}

std::vector<SharedOutput> DiffusionRecipe::shared_outputs() const {
  const modules::DitConfig config = dit_config();
  const double n = tokens_per_sample(), d = static_cast<double>(config.hidden_size());
  if (n == 0) return {};
  const int64_t frames = config_.condition_time < 0 ? 1 : geometry().frames / config.patch_size[0];
  std::vector<SharedOutput> outputs = {
      {.block = "", .elements = n * d, .by_tokens = true},
      // The time code, and what the modulations add.
      {.block = "time_embed.norm", .elements = static_cast<double>(frames) * d},
      {.block = "time_embed.t_embedder", .elements = static_cast<double>(frames) * 3 * d}};
  if (config.use_crossattn_projection)
    outputs.push_back(
        {.block = "crossattn_proj",
         .elements = static_cast<double>(text_tokens() * config.encoder_hidden_states_channels)});
  if (config.has_learnable_positions())
    outputs.push_back({.block = "learnable_pos_embed", .elements = n * d, .by_sample = false});
  return outputs;
}

double DiffusionRecipe::tensor_elements_per_sample(bool sequence, int64_t recompute) const {
  const modules::DitConfig config = dit_config();
  const auto traffic = modules::tensor_traffic(config, tokens_per_sample(), sequence);
  const int64_t again = recompute > 0 ? (config.num_layers + recompute - 1) / recompute : 0;
  return traffic.block * static_cast<double>(2 * config.num_layers + again) + 2 * traffic.head;
}

}  // namespace cosmos::trainer
