#pragma once

// The "action" recipe: post-trains Predict2 or 2.5 to follow a robot's actions.
//
//   {"type": "action", "model": {"path": BASE}, "action": {"action_dim": 7}, ...,
//    "data": {"path": "datasets/bridge", "actions": "annotation/train", "num_frames": 13}}
//
// Everything else is the "predict" recipe's. A base without actions gets fresh embedders beside its
// own weights, which all train (as NVIDIA does); a CosmosActionTransformer3DModel goes on as it is.
// Its exports are CosmosActionTransformer3DModel folders, for cosmos-generate --actions.

#include "modules/dit/action_transformer.h"
#include "trainer/recipes/diffusion.h"

namespace cosmos::trainer {

struct ActionRecipeConfig {
  Json action = Json::object();

  template <typename Visitor>
  void fields(Visitor& v) {
    v("action", action,
      "{\"action_dim\": 7, \"num_actions\": 4, \"per_latent_frame\": true}: what the embedders "
      "read; left out: what the model's folder says, or these");
  }
};

class ActionRecipe : public DiffusionRecipe {
 public:
  /// Reads and checks the settings; opens nothing.
  ActionRecipe(const Json& config, const std::string& where);
  Json resolved_config() const override;
  /// None: a base's file lacks the embedders.
  std::shared_ptr<modules::Model> model_without_weights() override { return nullptr; }

 protected:
  Draws draw(const Batch& batch, uint64_t seed, bool training, int64_t repeat) override;
  std::shared_ptr<modules::CosmosTransformer3DModel> fresh_transformer() const override;
  std::shared_ptr<modules::CosmosTransformer3DModel> read_transformer() const override;

 private:
  modules::ActionConfig action_config() const;

  ActionRecipeConfig action_;
};

std::shared_ptr<Recipe> make_action_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
