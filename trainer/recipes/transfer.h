#pragma once

// The "transfer" recipe: trains a control branch of Cosmos Transfer2.5 and leaves the base as it
// is.
//
//   {"type": "transfer", "model": {"path": BASE}, "control_net": {"n_controlnet_blocks": 4}, ...,
//    "data": {"path": DIR, "control": "edge"}}
//
// Everything else is the "predict" recipe's: noise levels, given frames, text dropout, validation.
// The loss is that of the base with the branch's residuals; gradients pass through the frozen base
// into the branch. A fresh branch starts from the base's first blocks and changes nothing.
// Per sample, from a stream of its own, control dropout turns the control latents into zeros.
// Several controls ("control": "edge,blur") go through the one branch, and their residuals are
// added up; with "control_weights": "per_frame" each latent frame of each has a weight drawn from
// U(0, 1), divided by max(1, their sum) as in generation.
//
// Of several cameras ("views" as in the "multiview" recipe, data of type "multiview", each camera
// with its control video) base and branch are multi-view models. The base must have camera
// embeddings already: frozen, it would keep them as they were drawn.
//
//   {"type": "transfer", "model": {"path": MULTI_VIEW_BASE}, "views": {"state_t": 8}, ...,
//    "data": {"type": "multiview", "path": DIR, "cameras": [...], "control": "hdmap"}}

#include "modules/transfer/control_net.h"
#include "trainer/recipes/multiview.h"

namespace cosmos::trainer {

struct TransferConfig {
  Json control_net = Json::object();
  double control_dropout = 0;
  std::string control_weights = "one";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("control_net", control_net,
      "{\"path\": DIR} of a CosmosControlNetModel folder, or for a fresh one (and for --plan "
      "before "
      "the download) {\"n_controlnet_blocks\": 4, \"control_channels\": 128}, of several views "
      "also "
      "\"hint_layers\": 7");
    v("control_dropout", control_dropout, "share of the clips whose control becomes zeros");
    v("control_weights", control_weights,
      "one, or per_frame: drawn for every latent frame of every control");
  }
};

class TransferRecipe : public MultiViewRecipe {
 public:
  /// Reads and checks the settings; opens nothing.
  TransferRecipe(const Json& config, const std::string& where);

  std::shared_ptr<modules::Model> model() override { return control_net(); }
  /// None: the frozen base is whole on every rank, and the branch begins as a copy of it.
  std::shared_ptr<modules::Model> model_without_weights() override { return nullptr; }
  std::shared_ptr<modules::Model> model_for_plan() override;
  /// `base_loss`: that of the base alone, on the run's first batch.
  std::map<std::string, double> start_metrics(const Batch& first,
                                              const StepContext& context) override;
  Loss loss(const Batch& batch, const StepContext& context) override;
  Json resolved_config() const override;
  double flops_per_sample() const override;

  /// The frozen base.
  std::shared_ptr<modules::CosmosTransformer3DModel> transformer() override;
  std::shared_ptr<modules::CosmosControlNetModel> control_net();

 protected:
  Draws draw(const Batch& batch, uint64_t seed, bool training, int64_t repeat) override;
  modules::NetworkOptions network_options(const ControlDraw& control,
                                          std::optional<double> fps) const override;
  std::shared_ptr<modules::CosmosTransformer3DModel> read_transformer() const override;

 private:
  std::filesystem::path net_file() const;
  int64_t net_blocks() const;
  /// Inside SkipInit with no weights.
  std::shared_ptr<modules::CosmosControlNetModel> fresh_net() const;
  std::shared_ptr<modules::CosmosControlNetModel> read_net() const;

  TransferConfig transfer_;
  std::shared_ptr<modules::CosmosControlNetModel> net_;
  bool frozen_ = false;
};

std::shared_ptr<Recipe> make_transfer_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
