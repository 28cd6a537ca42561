#pragma once

// What the vision towers of Qwen2.5-VL and Qwen3-VL are made of. N patches of all images and frames
// stand in one row, D width.

#include "modules/core/layers.h"
#include "modules/core/linear.h"
#include "modules/vlm/config.h"
#include "modules/vlm/decoder.h"
#include "modules/vlm/rope.h"

namespace cosmos::modules {

/// A patch's pixels as one product.  Parameters: proj.weight [D, C, T, P, P] (a convolution whose
/// stride is its kernel), proj.bias [D].
class VisionPatchEmbedImpl : public torch::nn::Module {
 public:
  VisionPatchEmbedImpl(const VisionConfig& config, bool bias);
  /// pixels: [N, C T P P] -> [N, D]
  Tensor forward(const Tensor& pixels);

  Tensor weight, bias;
};
TORCH_MODULE(VisionPatchEmbed);

/// Attention in both directions within each stretch of patches.  Parameters: qkv, proj.
class VisionAttentionImpl : public torch::nn::Module {
 public:
  VisionAttentionImpl(int64_t dim, int64_t heads);
  /// x: [N, D]; offsets: borders of the stretches -> [N, D]
  Tensor forward(const Tensor& x, const RopeTables& rope, const std::vector<int64_t>& offsets);

 private:
  int64_t head_dim_;
  Linear qkv_{nullptr}, proj_{nullptr};
};
TORCH_MODULE(VisionAttention);

/// W2 gelu(W1 x).  Parameters: linear_fc1, linear_fc2.
class VisionMlpImpl : public torch::nn::Module {
 public:
  VisionMlpImpl(int64_t dim, int64_t inner_dim, std::string approximate);
  Tensor forward(const Tensor& x);

 private:
  std::string approximate_;
  Linear linear_fc1_{nullptr}, linear_fc2_{nullptr};
};
TORCH_MODULE(VisionMlp);

/// A block of Qwen2.5-VL (RMSNorm, SwiGLU) or of Qwen3-VL (LayerNorm, GELU).  Parameters: norm1,
/// attn, norm2, mlp.
class VisionBlockImpl : public torch::nn::Module {
 public:
  VisionBlockImpl(const VisionConfig& config, LmFamily family);
  Tensor forward(const Tensor& x, const RopeTables& rope, const std::vector<int64_t>& offsets);

 private:
  RmsNorm rms1_{nullptr}, rms2_{nullptr};
  LayerNorm norm1_{nullptr}, norm2_{nullptr};
  VisionAttention attn_{nullptr};
  GatedMlp gated_mlp_{nullptr};
  VisionMlp mlp_{nullptr};
};
TORCH_MODULE(VisionBlock);

/// m x m patches to one token of the language model.
///   Qwen2.5-VL         W2 gelu(W1 merge(norm x))     ln_q, mlp.0, mlp.2
///   Qwen3-VL           the same, LayerNorm           norm, linear_fc1, linear_fc2
///   Qwen3-VL DeepStack W2 gelu(W1 norm(merge x))     as above
class VisionMergerImpl : public torch::nn::Module {
 public:
  VisionMergerImpl(const VisionConfig& config, LmFamily family, bool norm_after_merge = false);
  /// x: [N, D] -> [N / m², out]
  Tensor forward(const Tensor& x);

 private:
  int64_t merged_dim_;
  bool norm_after_merge_;
  RmsNorm ln_q_{nullptr};
  LayerNorm norm_{nullptr};
  Linear first_{nullptr}, second_{nullptr};
};
TORCH_MODULE(VisionMerger);

}  // namespace cosmos::modules
