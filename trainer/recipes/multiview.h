#pragma once

// The "multiview" recipe: post-trains Predict2 or 2.5 on clips of several cameras at once.
//
//   {"type": "multiview", "model": {"path": BASE}, "views": {"state_t": 8}, ...,
//    "data": {"type": "multiview", "path": "datasets/waymo",
//             "cameras": ["pinhole_front=front_wide", ...], "num_frames": 29}}
//
// Everything else is the "predict" recipe's, of each view: given frames are the first of every
// view, one noise level is shared. A base without views gets fresh camera embeddings that change
// nothing at first (CosmosMultiViewTransformer3DModel::start_from), and all of it trains; a
// CosmosMultiViewTransformer3DModel goes on as it is, with LoRA too. Exports are folders of that
// class, for cosmos-generate --view.

#include "modules/dit/multiview_transformer.h"
#include "trainer/recipes/diffusion.h"

namespace cosmos::trainer {

struct MultiViewRecipeConfig {
  Json views = Json::object();

  template <typename Visitor>
  void fields(Visitor& v) {
    v("views", views,
      "{\"state_t\": 8, \"n_cameras_emb\": 7, \"view_condition_dim\": 7}: latent frames of a view, "
      "cameras, numbers of a camera's embedding; left out: what the model's folder says, or these");
  }
};

class MultiViewRecipe : public DiffusionRecipe {
 public:
  /// Reads and checks the settings; opens nothing. A recipe built on this one may be for one view
  /// as well: `views` false, and all is as in DiffusionRecipe.
  MultiViewRecipe(const Json& config, const std::string& where, bool views = true);
  Json resolved_config() const override;
  double tokens_per_sample() const override;
  /// Only of a folder that has views: a base's file lacks the embeddings.
  std::shared_ptr<modules::Model> model_without_weights() override;

 protected:
  Draws draw(const Batch& batch, uint64_t seed, bool training, int64_t repeat) override;
  std::shared_ptr<modules::CosmosTransformer3DModel> fresh_transformer() const override;
  std::shared_ptr<modules::CosmosTransformer3DModel> read_transformer() const override;

  bool has_views() const { return has_views_; }
  modules::MultiViewConfig view_config() const;
  /// Whether the folder of `model.path` is a multi-view model's.
  bool base_has_views() const;

 private:
  bool has_views_;
  MultiViewRecipeConfig views_;
};

std::shared_ptr<Recipe> make_multiview_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
