#include "modules/vlm/decoder.h"

#include "modules/vlm/kv_cache.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/rms_norm/rms_norm.h"

namespace cosmos::modules {

Tensor causal_padding_mask(const Tensor& attention_mask) {
  if (!attention_mask.defined()) return {};
  const Tensor real = attention_mask.ne(0);
  if (real.all().item<bool>()) return {};
  const int64_t length = real.size(1);
  const Tensor before = torch::ones({length, length}, real.options()).tril();
  return before.logical_and(real.unsqueeze(1)).unsqueeze(1);
}

TextAttentionImpl::TextAttentionImpl(const LanguageModelConfig& config, int64_t layer)
    : layer_(layer), head_dim_(config.text.head_size()), eps_(config.text.rms_norm_eps) {
  const TextConfig& text = config.text;
  const int64_t D = text.hidden_size, heads = text.num_attention_heads;
  const auto project = [&](const char* name, int64_t in, int64_t out, bool bias) {
    return register_module(name, Linear(in, out, bias));
  };
  q_proj_ = project("q_proj", D, heads * head_dim_, config.qkv_bias());
  k_proj_ = project("k_proj", D, text.kv_heads() * head_dim_, config.qkv_bias());
  v_proj_ = project("v_proj", D, text.kv_heads() * head_dim_, config.qkv_bias());
  o_proj_ = project("o_proj", heads * head_dim_, D, config.output_bias());
  if (!config.has_qk_norm()) return;
  q_norm_ = register_module("q_norm", RmsNorm(head_dim_, eps_));
  k_norm_ = register_module("k_norm", RmsNorm(head_dim_, eps_));
}

Tensor TextAttentionImpl::attend(const Tensor& q, const Tensor& k, const Tensor& v,
                                 const SequencePlan& plan) const {
  if (plan.cache) return plan.cache->attend(layer_, q, k, v, plan.offsets);
  if (!plan.offsets.empty())
    return ops::varlen_attention(q[0], k[0], v[0], plan.offsets, plan.offsets, /*causal=*/true)
        .unsqueeze(0);
  const bool masked = plan.mask.defined();
  return torch::scaled_dot_product_attention(
             q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
             masked ? std::optional<Tensor>(plan.mask) : std::nullopt, /*dropout_p=*/0.0,
             /*is_causal=*/!masked, /*scale=*/std::nullopt, /*enable_gqa=*/q.size(2) != k.size(2))
      .transpose(1, 2);
}

Tensor TextAttentionImpl::forward(const Tensor& x, const SequencePlan& plan) {
  const Tensors qkv = linear_group(x, {q_proj_, k_proj_, v_proj_});
  const auto split = [&](const Tensor& y) { return y.view({y.size(0), y.size(1), -1, head_dim_}); };
  const auto turn = [&](const Tensor& y, const RmsNorm& norm) {
    const auto weight = norm ? std::optional<Tensor>(norm->weight) : std::nullopt;
    return ops::rms_norm_rope(split(y), weight, plan.rope.cos, plan.rope.sin, eps_);
  };
  const Tensor attended = attend(turn(qkv[0], q_norm_), turn(qkv[1], k_norm_), split(qkv[2]), plan);
  return o_proj_(attended.flatten(2));
}

GatedMlpImpl::GatedMlpImpl(int64_t dim, int64_t inner_dim, bool bias) {
  gate_proj_ = register_module("gate_proj", Linear(dim, inner_dim, bias));
  up_proj_ = register_module("up_proj", Linear(dim, inner_dim, bias));
  down_proj_ = register_module("down_proj", Linear(inner_dim, dim, bias));
}

Tensor GatedMlpImpl::forward(const Tensor& x) {
  const Tensors gate_up = linear_group(x, {gate_proj_, up_proj_});
  return down_proj_(ops::swiglu(gate_up[0], gate_up[1]));
}

DecoderLayerImpl::DecoderLayerImpl(const LanguageModelConfig& config, int64_t layer) {
  const TextConfig& text = config.text;
  self_attn_ = register_module("self_attn", TextAttention(config, layer));
  if (config.is_sparse(layer)) {
    moe_ = register_module("mlp",
                           SparseMoeBlock(MoeOptions{.dim = text.hidden_size,
                                                     .inner_dim = text.moe_intermediate_size,
                                                     .experts = text.experts(),
                                                     .experts_per_token = text.num_experts_per_tok,
                                                     .normalize = config.normalizes_experts()}));
  } else {
    mlp_ =
        register_module("mlp", GatedMlp(text.hidden_size, text.intermediate_size, text.mlp_bias));
  }
  input_layernorm_ =
      register_module("input_layernorm", RmsNorm(text.hidden_size, text.rms_norm_eps));
  post_attention_layernorm_ =
      register_module("post_attention_layernorm", RmsNorm(text.hidden_size, text.rms_norm_eps));
}

Tensor DecoderLayerImpl::forward(const Tensor& x, const SequencePlan& plan) {
  const Tensor h = x + self_attn_(input_layernorm_(x), plan);
  const Tensor n = post_attention_layernorm_(h);
  return h + (moe_ ? moe_(n) : mlp_(n));
}

}  // namespace cosmos::modules
