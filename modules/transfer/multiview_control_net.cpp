#include "modules/transfer/multiview_control_net.h"

#include "modules/core/init.h"

namespace cosmos::modules {

MultiViewControlConfig MultiViewControlConfig::of_base(const MultiViewConfig& base, int64_t blocks,
                                                       int64_t control_channels) {
  return {.net = ControlNetConfig::of_base(base.dit, blocks, control_channels),
          .state_t = base.state_t,
          .n_cameras_emb = base.n_cameras_emb,
          .view_condition_dim = base.view_condition_dim};
}

MultiViewControlConfig MultiViewControlConfig::from_json(const Json& json,
                                                         const std::string& where) {
  MultiViewControlConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  require(config.state_t > 0 && config.n_cameras_emb > 0 && config.view_condition_dim > 0 &&
              config.hint_layers >= 0,
          where, ": state_t, n_cameras_emb, view_condition_dim: expected positive numbers, and ",
          "hint_layers 0 or more");
  config.net = ControlNetConfig::from_json(without_fields(json, config), where);
  require(config.state_t % config.net.patch_size[0] == 0, where, ": state_t: ", config.state_t,
          " latent frames do not divide into patches of ", config.net.patch_size[0]);
  const DitConfig dit = config.net.dit_config();
  require(!dit.has_image_context() && !dit.has_learnable_positions(), where,
          ": img_context_dim_in, extra_pos_embed_type: expected null; no multi-view model has ",
          "image features or learnable positions");
  return config;
}

Json MultiViewControlConfig::to_json() const {
  Json json = net.to_json();
  json.update(write_fields(*this));
  json["_class_name"] = "CosmosMultiViewControlNetModel";
  return json;
}

CosmosMultiViewControlNetModel::CosmosMultiViewControlNetModel(const MultiViewControlConfig& config)
    : CosmosControlNetModel(config.net, config.view_condition_dim), view_config_(config) {
  view_embeddings_ = register_module("view_embeddings",
                                     Embedding(config.n_cameras_emb, config.view_condition_dim));
  if (config.hint_layers == 0) return;
  const int64_t D = config.net.model_channels;
  hint_embed_ = add_container(*this, "hint_embed");
  for (int64_t i = 0; i < config.hint_layers; ++i)
    hint_products_.push_back(hint_embed_->register_module(std::to_string(2 * i), Linear(D, D)));
  if (SkipInit::active()) return;
  for (auto& item : hint_embed_->named_parameters()) initialise_parameter(item.key(), item.value());
}

int64_t CosmosMultiViewControlNetModel::views(const DitInputs& in) const {
  return count_views(in, view_config_.state_t, view_config_.n_cameras_emb);
}

Tensor CosmosMultiViewControlNetModel::embed(const char* name, PatchEmbed& embed,
                                             const DitInputs& in) {
  const int64_t state_t = view_config_.state_t;
  const Tensor code =
      run_block("view_embeddings", *view_embeddings_, {},
                [this, index = view_cameras(in, state_t)](const Tensors&) -> Tensors {
                  return {view_embeddings_(index)};
                })[0];
  const Tensor x = run_block(name, *embed, {concat_masks(in, /*padding_mask=*/true), code},
                             [&embed, state_t](const Tensors& x) -> Tensors {
                               return {embed(with_view_code(x[0], x[1], state_t))};
                             })[0];
  return tokens()->scatter(x, 2);
}

Tensor CosmosMultiViewControlNetModel::control_tokens(const Tensor& x) {
  if (hint_products_.empty()) return x;
  return run_block("hint_embed", *hint_embed_, {x}, [this](const Tensors& inputs) -> Tensors {
    Tensor h = inputs[0];
    for (Linear& product : hint_products_) h = torch::silu(product(h));
    return {h};
  })[0];
}

}  // namespace cosmos::modules
