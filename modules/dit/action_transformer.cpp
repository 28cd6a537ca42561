#include "modules/dit/action_transformer.h"

namespace cosmos::modules {

ActionConfig ActionConfig::from_json(const Json& json, const std::string& where) {
  ActionConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  require(config.action_dim > 0 && config.num_actions > 0, where,
          ": action_dim, num_actions: expected positive numbers, got ", config.action_dim, " and ",
          config.num_actions);
  config.dit = DitConfig::from_json(without_fields(json, config), where);
  require(!config.per_latent_frame || config.dit.patch_size[0] == 1, where,
          ": per_latent_frame needs patches of one frame, got patch_size ",
          config.dit.patch_size[0]);
  return config;
}

Json ActionConfig::to_json() const {
  Json json = dit.to_json();
  json.update(write_fields(*this));
  json["_class_name"] = "CosmosActionTransformer3DModel";
  return json;
}

CosmosActionTransformer3DModel::CosmosActionTransformer3DModel(const ActionConfig& config)
    : CosmosTransformer3DModel(config.dit), action_config_(config) {
  const int64_t D = config.dit.hidden_size();
  to_emb_ = make_embedder("action_embedder_B_D", D);
  to_temb_ = make_embedder("action_embedder_B_3D", 3 * D);
}

std::vector<std::string> CosmosActionTransformer3DModel::block_order() const {
  std::vector<std::string> order = CosmosTransformer3DModel::block_order();
  order.insert(order.begin(), {to_emb_.name, to_temb_.name});
  return order;
}

CosmosActionTransformer3DModel::Embedder CosmosActionTransformer3DModel::make_embedder(
    const std::string& name, int64_t width) {
  const int64_t D = config_.hidden_size();
  Embedder embedder{.name = name, .module = add_container(*this, name)};
  embedder.fc1 = embedder.module->register_module(
      "fc1", Linear(action_config_.action_dim * action_config_.num_actions, 4 * D));
  embedder.fc2 = embedder.module->register_module("fc2", Linear(4 * D, width));
  return embedder;
}

Tensor CosmosActionTransformer3DModel::embed(Embedder& embedder, const Tensor& actions) {
  return run_block(embedder.name, *embedder.module, {actions},
                   [&embedder](const Tensors& a) -> Tensors {
                     return {embedder.fc2(torch::gelu(embedder.fc1(a[0]), "tanh"))};
                   })[0];
}

Tensors CosmosActionTransformer3DModel::time_offsets(const DitInputs& in, const PatchGrid& grid) {
  require(in.action.defined(), "action: missing");
  const int64_t B = in.hidden_states.size(0), each = action_config_.num_actions;
  const bool frames = action_config_.per_latent_frame;
  const int64_t steps = frames ? grid.frames - 1 : 1;
  check_shape(in.action, "action", {B, steps * each, action_config_.action_dim},
              frames ? "[B, actions of every latent frame but the first, action_dim]"
                     : "[B, num_actions, action_dim]");
  const Tensor actions = in.action.to(in.hidden_states.scalar_type()).reshape({B, steps, 1, -1});
  Tensors offsets = {embed(to_emb_, actions), embed(to_temb_, actions)};
  if (!frames) return offsets;
  for (Tensor& offset : offsets) {
    offset = torch::cat({in.hidden_states.new_zeros({B, 1, 1, offset.size(3)}), offset}, 1);
    if (in.condition_mask.defined()) {
      const Tensor given = in.condition_mask.select(1, 0).select(2, 0).select(2, 0);  // [B, T]
      offset = offset * (1 - given).view({B, grid.frames, 1, 1});
    }
  }
  return offsets;
}

}  // namespace cosmos::modules
