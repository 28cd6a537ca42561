#pragma once

// The control branch of multi-view Transfer2.5 (driving: a world scenario beside up to 7 cameras):
// NVIDIA's MultiViewControlDiT. diffusers has no such class; the name is ours.
//
// CosmosControlNetModel over views that stand one after another along T, as in
// CosmosMultiViewTransformer3DModel: both stems read the camera's embedding, RoPE starts anew in
// every view, each view reads its own text. What the control's stem makes goes through products
// before the first block:
//
//   x = silu(W_L ... silu(W_1 patch_embed(control)))        hint_embed.{0,2,...}.{weight,bias}
//
// view_embeddings is a copy of the base's, like the other shared modules.

#include "modules/dit/multiview_transformer.h"
#include "modules/transfer/control_net.h"

namespace cosmos::modules {

struct MultiViewControlConfig {
  ControlNetConfig net = {};  ///< in_channels and latent_channels without those of the view
  int64_t state_t = 8;
  int64_t n_cameras_emb = 7;
  int64_t view_condition_dim = 7;
  int64_t hint_layers = 7;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("state_t", state_t, "latent frames of a view");
    v("n_cameras_emb", n_cameras_emb, "cameras that have an embedding, and the most views");
    v("view_condition_dim", view_condition_dim, "numbers of a camera's embedding");
    v("hint_layers", hint_layers, "products between the control's stem and the first block");
  }

  /// The control net of a multi-view base, as ControlNetConfig::of_base.
  static MultiViewControlConfig of_base(const MultiViewConfig& base, int64_t blocks,
                                        int64_t control_channels);
  static MultiViewControlConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;
};

class CosmosMultiViewControlNetModel : public CosmosControlNetModel {
 public:
  /// hint_embed is drawn as other products are.
  explicit CosmosMultiViewControlNetModel(const MultiViewControlConfig& config);
  const MultiViewControlConfig& view_config() const { return view_config_; }

  std::string class_name() const override { return "CosmosMultiViewControlNetModel"; }
  Json config_json() const override { return view_config_.to_json(); }

 protected:
  int64_t views(const DitInputs& inputs) const override;
  Tensor embed(const char* name, PatchEmbed& embed, const DitInputs& inputs) override;
  Tensor control_tokens(const Tensor& x) override;

 private:
  MultiViewControlConfig view_config_;
  Embedding view_embeddings_{nullptr};
  std::shared_ptr<torch::nn::Module> hint_embed_;
  std::vector<Linear> hint_products_;
};

}  // namespace cosmos::modules
