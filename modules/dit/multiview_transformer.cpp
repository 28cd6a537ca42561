#include "modules/dit/multiview_transformer.h"

namespace cosmos::modules {

MultiViewConfig MultiViewConfig::from_json(const Json& json, const std::string& where) {
  MultiViewConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  require(config.state_t > 0 && config.n_cameras_emb > 0 && config.view_condition_dim > 0, where,
          ": state_t, n_cameras_emb, view_condition_dim: expected positive numbers, got ",
          config.state_t, ", ", config.n_cameras_emb, " and ", config.view_condition_dim);
  config.dit = DitConfig::from_json(without_fields(json, config), where);
  require(config.state_t % config.dit.patch_size[0] == 0, where, ": state_t: ", config.state_t,
          " latent frames do not divide into patches of ", config.dit.patch_size[0]);
  require(!config.dit.has_image_context() && !config.dit.has_learnable_positions(), where,
          ": img_context_dim_in, extra_pos_embed_type: expected null; no multi-view model has ",
          "image features or learnable positions");
  return config;
}

Json MultiViewConfig::to_json() const {
  Json json = dit.to_json();
  json.update(write_fields(*this));
  json["_class_name"] = "CosmosMultiViewTransformer3DModel";
  return json;
}

int64_t count_views(const DitInputs& in, int64_t state_t, int64_t cameras) {
  const int64_t B = in.hidden_states.size(0), T = in.hidden_states.size(2), views = T / state_t;
  require(T % state_t == 0 && views >= 1 && views <= cameras, "hidden_states: expected 1 to ",
          cameras, " views of ", state_t, " latent frames (state_t), got ", T, " frames");
  require(in.encoder_hidden_states.size(1) % views == 0,
          "encoder_hidden_states: expected the texts of ", views,
          " views one after another, equally long, got ", in.encoder_hidden_states.size(1),
          " tokens");
  const Tensor& index = in.view_indices;
  if (!index.defined()) return views;
  check_shape(index, "view_indices", {index.dim() > 0 && index.size(0) == 1 ? 1 : B, views},
              "[1 or B, views]");
  require(!index.is_floating_point() && index.min().item<int64_t>() >= 0 &&
              index.max().item<int64_t>() < cameras,
          "view_indices: expected integers in [0, ", cameras, ")");
  return views;
}

Tensor view_cameras(const DitInputs& in, int64_t state_t) {
  const Tensor index = in.view_indices.defined()
                           ? in.view_indices.to(torch::kLong)
                           : torch::arange(in.hidden_states.size(2) / state_t).unsqueeze(0);
  return index.to(in.hidden_states.device());
}

Tensor with_view_code(const Tensor& x, const Tensor& code, int64_t state_t) {
  const auto [B, C, T, H, W] = dims<5>(x, "hidden_states");
  const Tensor by_frame = code.transpose(1, 2).repeat_interleave(state_t, 2);  // [B | 1, E, T]
  return torch::cat({x, by_frame.unsqueeze(3).unsqueeze(4).expand({B, -1, T, H, W})}, 1);
}

CosmosMultiViewTransformer3DModel::CosmosMultiViewTransformer3DModel(const MultiViewConfig& config)
    : CosmosTransformer3DModel(config.dit, config.view_condition_dim), view_config_(config) {
  view_embeddings_ = register_module("view_embeddings",
                                     Embedding(config.n_cameras_emb, config.view_condition_dim));
}

std::vector<std::string> CosmosMultiViewTransformer3DModel::block_order() const {
  std::vector<std::string> order = CosmosTransformer3DModel::block_order();
  order.insert(order.begin(), "view_embeddings");
  return order;
}

void CosmosMultiViewTransformer3DModel::start_from(const CosmosTransformer3DModel& base) {
  const torch::NoGradGuard no_grad;
  auto places = named_parameters();
  for (const auto& weight : base.named_parameters()) {
    Tensor* place = places.find(weight.key());
    require(place != nullptr, weight.key(), ": ", class_name(), " has no such weight");
    if (weight.key() == "patch_embed.proj.weight") {
      // Features are ordered by channel first, and the view's channels are the last.
      const int64_t columns = weight.value().size(1);
      require(place->size(0) == weight.value().size(0) && place->size(1) > columns, weight.key(),
              ": the base has ", weight.value().sizes(), ", views need ", place->sizes());
      Tensor wide = torch::zeros(place->sizes(), weight.value().options());
      wide.narrow(1, 0, columns).copy_(weight.value());
      place->set_data(wide);
    } else {
      require(place->sizes() == weight.value().sizes(), weight.key(), ": the base has ",
              weight.value().sizes(), ", the model wants ", place->sizes());
      place->set_data(weight.value());
    }
  }
}

int64_t CosmosMultiViewTransformer3DModel::views(const DitInputs& in) const {
  return count_views(in, view_config_.state_t, view_config_.n_cameras_emb);
}

Tensor CosmosMultiViewTransformer3DModel::embed_patches(const DitInputs& in) {
  const int64_t state_t = view_config_.state_t;
  const Tensor code =
      run_block("view_embeddings", *view_embeddings_, {},
                [this, index = view_cameras(in, state_t)](const Tensors&) -> Tensors {
                  return {view_embeddings_(index)};
                })[0];
  return run_block("patch_embed", *patch_embed_,
                   {concat_masks(in, config_.concat_padding_mask), code},
                   [this, state_t](const Tensors& inputs) -> Tensors {
                     return {patch_embed_(with_view_code(inputs[0], inputs[1], state_t))};
                   })[0];
}

}  // namespace cosmos::modules
