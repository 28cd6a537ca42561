#include "modules/dit/attention.h"

#include "ops/rms_norm/rms_norm.h"

namespace cosmos::modules {
namespace {

/// RMSNorm of every head, then RoPE.  x: [B, L, heads, d] -> [B, L, heads, d]
Tensor norm_rope(const Tensor& x, const RmsNorm& norm, const RopeTable& rope) {
  return ops::rms_norm_rope(x, norm->weight, rope.cos, rope.sin, norm->eps);
}

}  // namespace

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  const int64_t inner = options.heads * options.head_dim;
  to_q_ = register_module("to_q", Linear(options.dim, inner, /*bias=*/false));
  to_k_ = register_module("to_k", Linear(options.context_dim, inner, /*bias=*/false));
  to_v_ = register_module("to_v", Linear(options.context_dim, inner, /*bias=*/false));
  norm_q_ = register_module("norm_q", RmsNorm(options.head_dim, 1e-5));
  norm_k_ = register_module("norm_k", RmsNorm(options.head_dim, 1e-5));
  auto to_out = add_container(*this, "to_out");
  to_out_ = to_out->register_module("0", Linear(inner, options.dim, /*bias=*/false));
  if (!options.image_context) return;
  q_img_ = register_module("q_img", Linear(options.dim, inner, /*bias=*/false));
  k_img_ = register_module("k_img", Linear(options.dim, inner, /*bias=*/false));
  v_img_ = register_module("v_img", Linear(options.dim, inner, /*bias=*/false));
  q_img_norm_ = register_module("q_img_norm", RmsNorm(options.head_dim, 1e-6));
  k_img_norm_ = register_module("k_img_norm", RmsNorm(options.head_dim, 1e-6));
}

Tensor AttentionImpl::split_heads(const Tensor& x) const {
  // Heads by -1: a rank may hold a slice of them.
  return x.flatten(1, -2).unflatten(-1, {-1, options_.head_dim});
}

Tensor AttentionImpl::project_out(const Tensor& attended, const Tensor& like) {
  return to_out_(attended.flatten(2).unflatten(1, {like.size(1), -1}));
}

Tensor AttentionImpl::forward(const Tensor& x, const RopeTable& rope, const TokenPlan& tokens) {
  const Tensors qkv = linear_group(x, {to_q_, to_k_, to_v_});
  Tensor q = norm_rope(split_heads(qkv[0]), norm_q_, rope);
  Tensor k = norm_rope(split_heads(qkv[1]), norm_k_, rope);
  return project_out(tokens.attend(q, k, split_heads(qkv[2])), x);
}

Tensors AttentionImpl::keys_values(const Tensor& text, const Tensor& image) {
  const Tensors kv = linear_group(text, {to_k_, to_v_});
  Tensors all = {norm_k_(split_heads(kv[0])), split_heads(kv[1])};
  if (!image.defined()) return all;
  const Tensors kv_image = linear_group(image, {k_img_, v_img_});
  all.push_back(k_img_norm_(split_heads(kv_image[0])));
  all.push_back(split_heads(kv_image[1]));
  return all;
}

Tensor AttentionImpl::forward(const Tensor& x, const Tensor& text, const Tensor& image,
                              const Tensor& mask, ContextCache* cache) {
  const bool with_image = image.defined();
  const Tensors queries = with_image ? linear_group(x, {to_q_, q_img_}) : linear_group(x, {to_q_});
  const auto compute = [&] { return keys_values(text, image); };
  const Tensors kv = cache ? cache->once(*this, compute) : compute();
  Tensor attended = dense_attention(norm_q_(split_heads(queries[0])), kv[0], kv[1], mask);
  if (with_image)
    attended = attended + dense_attention(q_img_norm_(split_heads(queries[1])), kv[2], kv[3]);
  return project_out(attended, x);
}

}  // namespace cosmos::modules
