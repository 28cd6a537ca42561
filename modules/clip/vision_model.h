#pragma once

// CLIPVisionModelWithProjection: pictures as vectors beside texts' (Radford et al. 2021,
// arXiv:2103.00020; transformers modeling_clip.py). A pre-norm ViT: a class token and a learned
// table of positions; the class token's last state, normalised and projected, is the embedding.
//
// B pictures of S x S pixels, P edge of a patch, N = (S / P)² + 1 tokens, D = hidden_size.

#include <vector>

#include "modules/clip/config.h"
#include "modules/core/layers.h"
#include "modules/core/linear.h"
#include "modules/core/model.h"

namespace cosmos::modules {

/// Patches, class token and positions.  Parameters: class_embedding [D],
/// patch_embedding.weight [D, 3, P, P], position_embedding.weight [N, D].
class ClipEmbeddingsImpl : public torch::nn::Module {
 public:
  explicit ClipEmbeddingsImpl(const ClipVisionConfig& config);
  /// pixels: [B, 3, S, S] -> [B, N, D]
  Tensor forward(const Tensor& pixels);

 private:
  int64_t patch_size_;
  Tensor class_embedding_, patch_weight_;
  Embedding position_embedding_{nullptr};
};
TORCH_MODULE(ClipEmbeddings);

/// Attention and MLP, each behind a norm and added to its input.  Parameters:
/// self_attn.{q,k,v,out}_proj, layer_norm1, mlp.{fc1,fc2}, layer_norm2.
class ClipLayerImpl : public torch::nn::Module {
 public:
  explicit ClipLayerImpl(const ClipVisionConfig& config);
  /// [B, N, D] -> [B, N, D]
  Tensor forward(const Tensor& x);

 private:
  int64_t head_dim_;
  bool quick_;
  LayerNorm norm1_{nullptr}, norm2_{nullptr};
  Linear q_{nullptr}, k_{nullptr}, v_{nullptr}, out_{nullptr}, fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(ClipLayer);

/// Parameters: vision_model.{embeddings, pre_layrnorm (so spelled), encoder.layers.N,
/// post_layernorm}, visual_projection.weight.
class ClipVisionModel : public Model {
 public:
  /// Throws Error when the config does not make a network; `where` names it. Keys it does not know
  /// are kept.
  explicit ClipVisionModel(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "CLIPVisionModelWithProjection"; }
  Json config_json() const override;
  const ClipVisionConfig& config() const { return config_; }

  /// pixels: [B, 3, S, S], normalised (clip_pixels) -> embeddings [B, projection_dim], of any
  /// length.
  Tensor forward(const Tensor& pixels);
  /// forward: pixel_values -> image_embeds
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  /// Leaves out the text tower of a whole CLIPModel, and the tables of positions 0, 1, ... that
  /// older files hold.
  TensorMap from_file(TensorMap tensors) const override;

 private:
  Json source_;
  ClipVisionConfig config_;
  ClipEmbeddings embeddings_{nullptr};
  LayerNorm pre_norm_{nullptr}, post_norm_{nullptr};
  std::vector<ClipLayer> layers_;
  Linear projection_{nullptr};
};

/// How a folder's pictures are normalised.
struct ClipPixels {
  std::vector<double> mean = {0.48145466, 0.4578275, 0.40821073};
  std::vector<double> std = {0.26862954, 0.26130258, 0.27577711};

  /// Of preprocessor_config.json; CLIP's own where there is none.
  static ClipPixels load(const std::filesystem::path& folder);
};

/// Pictures as the tower takes them: the shorter side brought to `size` (bicubic, over areas), the
/// middle cut out, [0, 1], mean and deviation taken out: CLIPImageProcessor's steps.
/// frames: uint8 [B, H, W, 3] -> float32 [B, 3, size, size]
Tensor clip_pixels(const Tensor& frames, int64_t size, const ClipPixels& pixels);

}  // namespace cosmos::modules
