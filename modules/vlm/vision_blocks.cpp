#include "modules/vlm/vision_blocks.h"

#include <cmath>

#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/rms_norm/rms_norm.h"

namespace cosmos::modules {
namespace {

constexpr double kEps = 1e-6;

}  // namespace

VisionPatchEmbedImpl::VisionPatchEmbedImpl(const VisionConfig& config, bool with_bias) {
  auto proj = add_container(*this, "proj");
  weight = proj->register_parameter(
      "weight", new_parameter({config.hidden_size, config.in_channels, config.temporal_patch_size,
                               config.patch_size, config.patch_size}));
  if (with_bias) bias = proj->register_parameter("bias", new_parameter({config.hidden_size}));
  if (SkipInit::active()) return;
  const double bound = 1 / std::sqrt(static_cast<double>(config.patch_features()));
  weight.detach().uniform_(-bound, bound);  // torch.nn.Conv3d's initialisation
  if (with_bias) bias.detach().uniform_(-bound, bound);
}

Tensor VisionPatchEmbedImpl::forward(const Tensor& pixels) {
  return torch::linear(pixels, weight.flatten(1), bias);
}

VisionAttentionImpl::VisionAttentionImpl(int64_t dim, int64_t heads) : head_dim_(dim / heads) {
  qkv_ = register_module("qkv", Linear(dim, 3 * dim));
  proj_ = register_module("proj", Linear(dim, dim));
}

Tensor VisionAttentionImpl::forward(const Tensor& x, const RopeTables& rope,
                                    const std::vector<int64_t>& offsets) {
  const Tensors qkv = qkv_(x).view({x.size(0), 3, -1, head_dim_}).unbind(1);
  const auto turn = [&](const Tensor& y) {
    return ops::rms_norm_rope(y.unsqueeze(0), std::nullopt, rope.cos, rope.sin, kEps).squeeze(0);
  };
  const Tensor attended =
      ops::varlen_attention(turn(qkv[0]), turn(qkv[1]), qkv[2], offsets, offsets);
  return proj_(attended.flatten(1));
}

VisionMlpImpl::VisionMlpImpl(int64_t dim, int64_t inner_dim, std::string approximate)
    : approximate_(std::move(approximate)) {
  linear_fc1_ = register_module("linear_fc1", Linear(dim, inner_dim));
  linear_fc2_ = register_module("linear_fc2", Linear(inner_dim, dim));
}

Tensor VisionMlpImpl::forward(const Tensor& x) {
  return linear_fc2_(ops::gelu(linear_fc1_(x), approximate_));
}

VisionBlockImpl::VisionBlockImpl(const VisionConfig& config, LmFamily family) {
  const int64_t D = config.hidden_size;
  attn_ = register_module("attn", VisionAttention(D, config.num_heads));
  if (family == LmFamily::kQwen25Vl) {
    rms1_ = register_module("norm1", RmsNorm(D, kEps));
    rms2_ = register_module("norm2", RmsNorm(D, kEps));
    gated_mlp_ = register_module("mlp", GatedMlp(D, config.intermediate_size, /*bias=*/true));
  } else {
    norm1_ = register_module("norm1", LayerNorm(D, kEps));
    norm2_ = register_module("norm2", LayerNorm(D, kEps));
    mlp_ = register_module("mlp", VisionMlp(D, config.intermediate_size,
                                            config.hidden_act == "gelu" ? "none" : "tanh"));
  }
}

Tensor VisionBlockImpl::forward(const Tensor& x, const RopeTables& rope,
                                const std::vector<int64_t>& offsets) {
  const Tensor h = x + attn_(rms1_ ? rms1_(x) : norm1_(x), rope, offsets);
  return h + (gated_mlp_ ? gated_mlp_(rms2_(h)) : mlp_(norm2_(h)));
}

VisionMergerImpl::VisionMergerImpl(const VisionConfig& config, LmFamily family,
                                   bool norm_after_merge)
    : merged_dim_(config.hidden_size * config.merge_unit()), norm_after_merge_(norm_after_merge) {
  if (family == LmFamily::kQwen25Vl) {
    ln_q_ = register_module("ln_q", RmsNorm(config.hidden_size, kEps));
    auto mlp = add_container(*this, "mlp");
    first_ = mlp->register_module("0", Linear(merged_dim_, merged_dim_));
    second_ = mlp->register_module("2", Linear(merged_dim_, config.out_hidden_size));
    return;
  }
  norm_ =
      register_module("norm", LayerNorm(norm_after_merge ? merged_dim_ : config.hidden_size, kEps));
  first_ = register_module("linear_fc1", Linear(merged_dim_, merged_dim_));
  second_ = register_module("linear_fc2", Linear(merged_dim_, config.out_hidden_size));
}

Tensor VisionMergerImpl::forward(const Tensor& x) {
  Tensor merged;
  if (norm_after_merge_) {
    merged = norm_(x.reshape({-1, merged_dim_}));
  } else {
    merged = (ln_q_ ? ln_q_(x) : norm_(x)).reshape({-1, merged_dim_});
  }
  return second_(ops::gelu(first_(merged)));
}

}  // namespace cosmos::modules
