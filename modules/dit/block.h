#pragma once

// One block of the DiT: self-attention, cross-attention, MLP, each behind AdaLN and a gate.

#include "modules/dit/attention.h"

namespace cosmos::modules {

/// What every block of one forward call is given. B samples, T frames, N tokens of a frame, D
/// width.
struct BlockContext {
  // May carry gradients:
  Tensor emb;        ///< silu of the normed time code, [B | 1, T | 1, 1, D]
  Tensor temb;       ///< modulation shared by all blocks, [B | 1, T | 1, 1, 3 D]
  Tensor text;       ///< [B views, S, text_embed_dim]
  Tensor image;      ///< [B, I, D], or undefined
  Tensor positions;  ///< learnable positions [1, T, N, D], or undefined
  Tensor residual;   ///< this block's control residual [B | 1, T, N, D], or undefined
  // Constants:
  std::shared_ptr<const TokenPlan> tokens;
  RopeTable rope;
  Tensor mask;                          ///< of text, [B views, 1, 1, S], or undefined
  int64_t views = 1;                    ///< cameras one after another along T, each with its text
  std::shared_ptr<ContextCache> cache;  ///< of text and image, or null
};

/// x = x + positions
/// x = x + g1 * SelfAttention(LN(x) (1 + s1) + b1)
/// x = x + g2 * CrossAttention(LN(x) (1 + s2) + b2, text, image)
/// x = x + g3 * MLP(LN(x) (1 + s3) + b3)
/// x = x + residual
/// where (b, s, g) come from norm1, norm2, norm3, and CrossAttention reads each view's own text.
/// Parameters: norm{1,2,3}.*, attn1.*, attn2.*, ff.*.
class TransformerBlockImpl : public torch::nn::Module {
 public:
  explicit TransformerBlockImpl(const DitConfig& config);
  /// x: [B, T, N, D] -> [B, T, N, D]
  Tensor forward(const Tensor& x, const BlockContext& context);

 private:
  Modulation norm1_{nullptr}, norm2_{nullptr}, norm3_{nullptr};
  Attention attn1_{nullptr}, attn2_{nullptr};
  FeedForward ff_{nullptr};
};
TORCH_MODULE(TransformerBlock);

}  // namespace cosmos::modules
