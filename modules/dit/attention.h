#pragma once

// Attention of a DiT block: over the video's tokens, or over text (and image features).

#include "modules/core/token_plan.h"
#include "modules/dit/context_cache.h"
#include "modules/dit/embeddings.h"

namespace cosmos::modules {

struct AttentionOptions {
  int64_t dim = 0;  ///< width D of the tokens that ask
  int64_t heads = 1;
  int64_t head_dim = 64;
  int64_t context_dim = 0;     ///< width of the tokens that answer
  bool image_context = false;  ///< a second attention, over image features of width D
};

/// out = Wo [ A(q, k, v) + A(q', k', v') ],  A = softmax(q kᵀ / sqrt(d)) v per head
///
/// with q = norm(Wq x), k = norm(Wk c), v = Wv c over tokens c (RMSNorm of each head, eps 1e-5;
/// then RoPE when a table is given), and, where there are image features i, q' = norm(Wq' x), k' =
/// norm(Wk' i), v' = Wv' i (eps 1e-6), summed before the output product. Parameters:
/// to_{q,k,v}.weight, norm_{q,k}.weight, to_out.0.weight; with image context {q,k,v}_img.weight,
/// {q,k}_img_norm.weight. Source: diffusers CosmosAttnProcessor2_0 and 2_5.
class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const AttentionOptions& options);

  /// Self-attention over all tokens of a sample.  x, rope: this rank's tokens of `tokens`,
  /// [B, T, N, D] -> [B, T, N, D]
  Tensor forward(const Tensor& x, const RopeTable& rope, const TokenPlan& tokens);

  /// Cross-attention.  x: [B, T, N, D], text: [B, S, context_dim], image: [B, I, D] or undefined,
  /// mask: undefined, or [B, 1, 1, S], bool (true = attend) or added to the scores -> [B, T, N, D].
  /// With a cache, text and image are read by the first call only.
  Tensor forward(const Tensor& x, const Tensor& text, const Tensor& image, const Tensor& mask,
                 ContextCache* cache = nullptr);

 private:
  /// k, v of the text and k', v' of the image where there is one, [B, S | I, heads, d] each
  Tensors keys_values(const Tensor& text, const Tensor& image);
  /// [B, ..., heads d] -> [B, L, heads, d]
  Tensor split_heads(const Tensor& x) const;
  /// Merges heads and projects: [B, T N, heads, d] -> [B, T, N, D], T as `like` has it
  Tensor project_out(const Tensor& attended, const Tensor& like);

  AttentionOptions options_;
  Linear to_q_{nullptr}, to_k_{nullptr}, to_v_{nullptr}, to_out_{nullptr};
  RmsNorm norm_q_{nullptr}, norm_k_{nullptr};
  Linear q_img_{nullptr}, k_img_{nullptr}, v_img_{nullptr};
  RmsNorm q_img_norm_{nullptr}, k_img_norm_{nullptr};
};
TORCH_MODULE(Attention);

}  // namespace cosmos::modules
