#pragma once

// The action-conditioned transformer of Cosmos Predict2 and 2.5 (robots): a
// CosmosTransformer3DModel whose time code also says what is done. diffusers has no such class; the
// name and the config keys are ours, the parameter names of the embedders NVIDIA's.
//
//   emb = silu(RMSNorm(s + E_D(a))),  temb = L2 silu(L1 s) + E_3D(a)
//   E(a) = fc2 gelu_tanh(fc1 a)
//
// a: all actions of the clip at once (one embedding a clip), or those of each latent frame
// (released robot/action-cond weights: 4 a frame). Then the first latent frame has none, and given
// frames (condition mask 1) neither.

#include "modules/dit/transformer.h"

namespace cosmos::modules {

struct ActionConfig {
  DitConfig dit = {};
  int64_t action_dim = 7;
  /// Actions that one embedding reads: all of the clip's (12), or with per_latent_frame a frame's.
  int64_t num_actions = 4;
  bool per_latent_frame = true;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("action_dim", action_dim, "numbers of an action");
    v("num_actions", num_actions, "actions that one embedding reads");
    v("per_latent_frame", per_latent_frame, "an embedding a latent frame instead of one a clip");
  }

  static ActionConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;
};

class CosmosActionTransformer3DModel : public CosmosTransformer3DModel {
 public:
  explicit CosmosActionTransformer3DModel(const ActionConfig& config);
  const ActionConfig& action_config() const { return action_config_; }

  std::string class_name() const override { return "CosmosActionTransformer3DModel"; }
  Json config_json() const override { return action_config_.to_json(); }
  std::vector<std::string> block_order() const override;

 protected:
  /// action: [B, actions, action_dim], with per_latent_frame num_actions for each frame but the
  /// first.
  Tensors time_offsets(const DitInputs& inputs, const PatchGrid& grid) override;

 private:
  struct Embedder {
    std::string name;
    std::shared_ptr<torch::nn::Module> module;
    Linear fc1{nullptr}, fc2{nullptr};
  };
  Embedder make_embedder(const std::string& name, int64_t width);
  Tensor embed(Embedder& embedder, const Tensor& actions);

  ActionConfig action_config_;
  Embedder to_emb_, to_temb_;
};

}  // namespace cosmos::modules
