#include "modules/dit/block.h"

#include "ops/norm/adaln.h"

namespace cosmos::modules {

TransformerBlockImpl::TransformerBlockImpl(const DitConfig& config) {
  const int64_t D = config.hidden_size();
  const AttentionOptions self{.dim = D,
                              .heads = config.num_attention_heads,
                              .head_dim = config.attention_head_dim,
                              .context_dim = D};
  AttentionOptions cross = self;
  cross.context_dim = config.text_embed_dim;
  cross.image_context = config.has_image_context();
  norm1_ = register_module("norm1", Modulation(D, config.adaln_lora_dim, 3));
  attn1_ = register_module("attn1", Attention(self));
  norm2_ = register_module("norm2", Modulation(D, config.adaln_lora_dim, 3));
  attn2_ = register_module("attn2", Attention(cross));
  norm3_ = register_module("norm3", Modulation(D, config.adaln_lora_dim, 3));
  ff_ = register_module("ff", FeedForward(D, static_cast<int64_t>(D * config.mlp_ratio)));
}

Tensor TransformerBlockImpl::forward(const Tensor& input, const BlockContext& context) {
  const auto m1 = norm1_(context.emb, context.temb);
  const auto m2 = norm2_(context.emb, context.temb);
  const auto m3 = norm3_(context.emb, context.temb);

  Tensor x = context.positions.defined() ? input + context.positions : input;
  Tensor h = ops::adaln(x, m1.scale, m1.shift, kLayerNormEps);
  h = attn1_->forward(h, context.rope, *context.tokens);
  std::tie(x, h) = ops::gated_residual_adaln(x, h, m1.gate, m2.scale, m2.shift, kLayerNormEps);
  h = attn2_->forward(split_views(h, context.views), context.text, context.image, context.mask,
                      context.cache.get());
  h = join_views(h, context.views);
  std::tie(x, h) = ops::gated_residual_adaln(x, h, m2.gate, m3.scale, m3.shift, kLayerNormEps);
  x = ops::gated_residual(x, ff_(h), m3.gate);
  return context.residual.defined() ? x + context.residual : x;
}

}  // namespace cosmos::modules
