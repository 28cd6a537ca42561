#include "modules/clip/vision_model.h"

#include <cmath>

#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/vlm/processor.h"
#include "ops/activation/activation.h"

namespace cosmos::modules {

ClipEmbeddingsImpl::ClipEmbeddingsImpl(const ClipVisionConfig& config)
    : patch_size_(config.patch_size) {
  const int64_t D = config.hidden_size;
  class_embedding_ = register_parameter("class_embedding", new_parameter({D}));
  auto patch = add_container(*this, "patch_embedding");
  patch_weight_ =
      patch->register_parameter("weight", new_parameter({D, 3, patch_size_, patch_size_}));
  position_embedding_ = register_module("position_embedding", Embedding(config.patches() + 1, D));
  if (SkipInit::active()) return;
  class_embedding_.detach().normal_(0, 1 / std::sqrt(static_cast<double>(D)));
  patch_weight_.detach().normal_(0, 0.02);
  position_embedding_->weight.detach().mul_(0.02);
}

Tensor ClipEmbeddingsImpl::forward(const Tensor& pixels) {
  const Tensor patches =
      at::conv2d(pixels, patch_weight_, {}, patch_size_).flatten(2).transpose(1, 2);
  const Tensor first = class_embedding_.expand({pixels.size(0), 1, -1});
  return torch::cat({first, patches}, 1) + position_embedding_->weight;
}

ClipLayerImpl::ClipLayerImpl(const ClipVisionConfig& config)
    : head_dim_(config.hidden_size / config.num_attention_heads),
      quick_(config.hidden_act == "quick_gelu") {
  const int64_t D = config.hidden_size;
  auto attention = add_container(*this, "self_attn");
  k_ = attention->register_module("k_proj", Linear(D, D));
  v_ = attention->register_module("v_proj", Linear(D, D));
  q_ = attention->register_module("q_proj", Linear(D, D));
  out_ = attention->register_module("out_proj", Linear(D, D));
  norm1_ = register_module("layer_norm1", LayerNorm(D, config.layer_norm_eps));
  auto mlp = add_container(*this, "mlp");
  fc1_ = mlp->register_module("fc1", Linear(D, config.intermediate_size));
  fc2_ = mlp->register_module("fc2", Linear(config.intermediate_size, D));
  norm2_ = register_module("layer_norm2", LayerNorm(D, config.layer_norm_eps));
}

Tensor ClipLayerImpl::forward(const Tensor& x) {
  Tensors qkv = linear_group(norm1_(x), {q_, k_, v_});
  for (Tensor& part : qkv) part = part.unflatten(-1, {-1, head_dim_}).transpose(1, 2);
  const Tensor attended = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]);
  const Tensor h = x + out_(attended.transpose(1, 2).flatten(-2));
  const Tensor inner = fc1_(norm2_(h));
  return h + fc2_(quick_ ? inner * torch::sigmoid(1.702 * inner) : ops::gelu(inner, "none"));
}

ClipVisionModel::ClipVisionModel(const Json& config, const std::string& where)
    : source_(config.contains("vision_config") ? config["vision_config"] : config),
      config_(ClipVisionConfig::from_json(config, where)) {
  auto tower = add_container(*this, "vision_model");
  embeddings_ = tower->register_module("embeddings", ClipEmbeddings(config_));
  const auto norm = [&] { return LayerNorm(config_.hidden_size, config_.layer_norm_eps); };
  pre_norm_ = tower->register_module("pre_layrnorm", norm());
  auto encoder = add_container(*tower, "encoder");
  auto layers = add_container(*encoder, "layers");
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i)
    layers_.push_back(layers->register_module(std::to_string(i), ClipLayer(config_)));
  post_norm_ = tower->register_module("post_layernorm", norm());
  projection_ = register_module(
      "visual_projection", Linear(config_.hidden_size, config_.projection_dim, /*bias=*/false));
}

Json ClipVisionModel::config_json() const {
  Json json = source_;
  json.update(write_fields(config_));
  json["architectures"] = {class_name()};
  json["model_type"] = "clip_vision_model";
  return json;
}

Tensor ClipVisionModel::forward(const Tensor& pixels) {
  const auto [B, C, H, W] = dims<4>(pixels, "pixel_values");
  require(C == 3 && H == config_.image_size && W == config_.image_size,
          "pixel_values: expected [B, 3, ", config_.image_size, ", ", config_.image_size, "], got ",
          pixels.sizes());
  const auto block = [&](const std::string& name, auto module, const Tensor& x) {
    return run_block(name, *module, {x}, [module](const Tensors& given) mutable -> Tensors {
      return {module->forward(given[0])};
    })[0];
  };
  Tensor x = block("vision_model.embeddings", embeddings_, pixels);
  x = block("vision_model.pre_layrnorm", pre_norm_, x);
  for (std::size_t i = 0; i < layers_.size(); ++i)
    x = block("vision_model.encoder.layers." + std::to_string(i), layers_[i], x);
  return block("visual_projection", projection_,
               block("vision_model.post_layernorm", post_norm_, x.select(1, 0)));
}

TensorMap ClipVisionModel::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", class_name(), " has no method \"", method, "\" (it has forward)");
  require(inputs.size() == 1 && inputs.count("pixel_values") == 1, class_name(),
          " takes one input, \"pixel_values\"");
  return {{"image_embeds", forward(inputs.at("pixel_values"))}};
}

TensorMap ClipVisionModel::from_file(TensorMap tensors) const {
  std::erase_if(tensors, [](const auto& item) {
    const std::string& key = item.first;
    return key.starts_with("text_model.") || key == "text_projection.weight" ||
           key == "logit_scale" || key == "vision_model.embeddings.position_ids";
  });
  return tensors;
}

ClipPixels ClipPixels::load(const std::filesystem::path& folder) {
  ClipPixels pixels;
  const std::filesystem::path file = folder / "preprocessor_config.json";
  if (!is_file(file)) return pixels;
  const Json json = read_json(file);
  const std::string where = file.string() + ": ";
  for (const auto& [key, values] :
       {std::pair("image_mean", &pixels.mean), std::pair("image_std", &pixels.std)}) {
    if (json.contains(key))
      read_value(json[key], *values, join_path(where, key), UnknownKeys::kKeep);
    require(values->size() == 3, where, key, ": expected 3 numbers, got ", values->size());
  }
  return pixels;
}

Tensor clip_pixels(const Tensor& frames, int64_t size, const ClipPixels& pixels) {
  require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == torch::kUInt8,
          "pictures: expected uint8 [n, H, W, 3]");
  const int64_t H = frames.size(1), W = frames.size(2), shorter = std::min(H, W);
  const int64_t h = H * size / shorter, w = W * size / shorter;
  PixelConfig config;
  config.image_mean = pixels.mean;
  config.image_std = pixels.std;
  return resized_pixels(frames, {h, w}, config)
      .narrow(2, (h - size) / 2, size)
      .narrow(3, (w - size) / 2, size)
      .contiguous();
}

}  // namespace cosmos::modules
