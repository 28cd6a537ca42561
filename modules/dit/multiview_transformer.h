#pragma once

// The multi-view transformer of Cosmos Predict2 and 2.5 (driving: up to 7 cameras at once):
// NVIDIA's MultiViewDiT. diffusers has no such class; the class name is ours, the config keys are
// NVIDIA's, and so is the name of the one new weight.
//
// The views stand one after another along T, V x state_t latent frames. Self-attention runs over
// all of them; beside that a view differs from a longer clip in three places:
//
//   stem             [latents | condition mask | padding mask | E[view]], E constant over a view
//   RoPE             the first frame of every view is frame 0
//   cross-attention  the tokens of view v read the v-th of V equal parts of the text
//
// E = view_embeddings.weight [n_cameras_emb, view_condition_dim].

#include "modules/core/layers.h"
#include "modules/dit/transformer.h"

namespace cosmos::modules {

struct MultiViewConfig {
  DitConfig dit = {};  ///< in_channels without those of the view
  int64_t state_t = 8;
  int64_t n_cameras_emb = 7;
  int64_t view_condition_dim = 7;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("state_t", state_t, "latent frames of a view");
    v("n_cameras_emb", n_cameras_emb, "cameras that have an embedding, and the most views");
    v("view_condition_dim", view_condition_dim, "numbers of a camera's embedding");
  }

  static MultiViewConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;
};

/// Views of a call. Throws Error when T, text or view_indices do not fit.
int64_t count_views(const DitInputs& inputs, int64_t state_t, int64_t cameras);
/// Which camera each view is, [B | 1, V], on the latents' device.
Tensor view_cameras(const DitInputs& inputs, int64_t state_t);
/// Beside x the embedding of each of its views, along channels.
/// x: [B, C, V state_t, H, W], code: [B | 1, V, E] -> [B, C + E, V state_t, H, W]
Tensor with_view_code(const Tensor& x, const Tensor& code, int64_t state_t);

class CosmosMultiViewTransformer3DModel : public CosmosTransformer3DModel {
 public:
  /// Fresh embeddings are standard normal, as NVIDIA's.
  explicit CosmosMultiViewTransformer3DModel(const MultiViewConfig& config);
  const MultiViewConfig& view_config() const { return view_config_; }

  std::string class_name() const override { return "CosmosMultiViewTransformer3DModel"; }
  Json config_json() const override { return view_config_.to_json(); }
  std::vector<std::string> block_order() const override;

  /// Takes over the weights of a transformer without views; the stem's columns for the view become
  /// zero, so that every view is at first what that transformer makes of it.
  void start_from(const CosmosTransformer3DModel& base);

 protected:
  int64_t views(const DitInputs& inputs) const override;
  Tensor embed_patches(const DitInputs& inputs) override;

 private:
  MultiViewConfig view_config_;
  Embedding view_embeddings_{nullptr};
};

}  // namespace cosmos::modules
