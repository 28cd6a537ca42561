#pragma once

// A layer of the language model: grouped-query attention and a SwiGLU MLP or a mixture of experts.
//
// B rows, L tokens, D width.

#include "modules/core/layers.h"
#include "modules/core/linear.h"
#include "modules/vlm/config.h"
#include "modules/vlm/moe.h"
#include "modules/vlm/sequence_plan.h"

namespace cosmos::modules {

/// out = Wo A(q, k, v), with q = rope(norm(Wq x)), k = rope(norm(Wk x)), v = Wv x; heads are normed
/// where the class does (Qwen3). Parameters: {q,k,v,o}_proj, {q,k}_norm.
class TextAttentionImpl : public torch::nn::Module {
 public:
  TextAttentionImpl(const LanguageModelConfig& config, int64_t layer);
  /// x: [B, L, D] -> [B, L, D]
  Tensor forward(const Tensor& x, const SequencePlan& plan);

 private:
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const SequencePlan& plan) const;

  int64_t layer_, head_dim_;
  double eps_;
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, o_proj_{nullptr};
  RmsNorm q_norm_{nullptr}, k_norm_{nullptr};
};
TORCH_MODULE(TextAttention);

/// Wdown swiglu(Wgate x, Wup x).  Parameters: {gate,up,down}_proj.
class GatedMlpImpl : public torch::nn::Module {
 public:
  GatedMlpImpl(int64_t dim, int64_t inner_dim, bool bias);
  Tensor forward(const Tensor& x);

 private:
  Linear gate_proj_{nullptr}, up_proj_{nullptr}, down_proj_{nullptr};
};
TORCH_MODULE(GatedMlp);

/// x + attention(norm x), then x + mlp(norm x).  Parameters: self_attn.*, mlp.*, input_layernorm,
/// post_attention_layernorm.
class DecoderLayerImpl : public torch::nn::Module {
 public:
  DecoderLayerImpl(const LanguageModelConfig& config, int64_t layer);
  /// x: [B, L, D] -> [B, L, D]
  Tensor forward(const Tensor& x, const SequencePlan& plan);

 private:
  TextAttention self_attn_{nullptr};
  GatedMlp mlp_{nullptr};
  SparseMoeBlock moe_{nullptr};  ///< in place of mlp_
  RmsNorm input_layernorm_{nullptr}, post_attention_layernorm_{nullptr};
};
TORCH_MODULE(DecoderLayer);

}  // namespace cosmos::modules
