#include "modules/tokenizer/cosmos_blocks.h"

#include <cmath>
#include <limits>

#include "modules/core/init.h"

namespace cosmos::modules {

CausalConv3d cosmos_point_conv(int64_t in, int64_t out) {
  return CausalConv3d(CausalConvOptions{.in = in, .out = out});
}

CausalConv3d cosmos_space_conv(int64_t in, int64_t out, int64_t stride, int64_t pad) {
  return CausalConv3d(CausalConvOptions{
      .in = in, .out = out, .kernel = {1, 3, 3}, .stride = {1, stride, stride}, .space_pad = pad});
}

CausalConv3d cosmos_time_conv(int64_t in, int64_t out, int64_t stride) {
  return CausalConv3d(CausalConvOptions{.in = in,
                                        .out = out,
                                        .kernel = {3, 1, 1},
                                        .stride = {stride, 1, 1},
                                        .front = 2,
                                        .pad = FrontPad::kRepeatFirst});
}

FrameNormImpl::FrameNormImpl(int64_t channels) {
  auto norm = std::make_shared<torch::nn::Module>();
  weight_ = norm->register_parameter("weight", torch::empty({channels}));
  bias_ = norm->register_parameter("bias", torch::empty({channels}));
  register_module("norm", norm);
  if (SkipInit::active()) return;
  torch::NoGradGuard no_grad;
  weight_.fill_(1);
  bias_.zero_();
}

Tensor FrameNormImpl::forward(const Tensor& x) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor frames = x.reshape({B * T, H, W, C}).permute({0, 3, 1, 2});
  const Tensor y = torch::group_norm(frames, 1, weight_, bias_, 1e-6);
  return y.permute({0, 2, 3, 1}).contiguous().view({B, T, H, W, C});
}

SpaceTimeConvImpl::SpaceTimeConvImpl(int64_t in, int64_t out)
    : conv_s_(cosmos_space_conv(in, out)), conv_t_(cosmos_time_conv(out, out)) {
  register_module("conv_s", conv_s_);
  register_module("conv_t", conv_t_);
}

Tensor SpaceTimeConvImpl::forward(const Tensor& x, TimeCache* cache) {
  return conv_t_->forward(conv_s_->forward(x), cache);
}

CosmosResnetImpl::CosmosResnetImpl(int64_t in, int64_t out)
    : norm1_(in), norm2_(out), conv1_(in, out), conv2_(out, out) {
  register_module("norm1", norm1_);
  register_module("conv1", conv1_);
  register_module("norm2", norm2_);
  register_module("conv2", conv2_);
  if (in != out) shortcut_ = register_module("conv_shortcut", cosmos_point_conv(in, out));
}

Tensor CosmosResnetImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = conv1_->forward(silu_of(norm1_->forward(x)), cache);
  h = conv2_->forward(silu_of(norm2_->forward(h)), cache);
  return h.add_(shortcut_ ? shortcut_->forward(x) : x);
}

CosmosAttentionImpl::CosmosAttentionImpl(int64_t channels, AttentionAxis axis)
    : axis_(axis),
      norm_(channels),
      to_q_(cosmos_point_conv(channels, channels)),
      to_k_(cosmos_point_conv(channels, channels)),
      to_v_(cosmos_point_conv(channels, channels)),
      to_out_(cosmos_point_conv(channels, channels)) {
  register_module("norm", norm_);
  register_module("to_q", to_q_);
  register_module("to_k", to_k_);
  register_module("to_v", to_v_);
  register_module("to_out", torch::nn::ModuleList(to_out_));
}

Tensor CosmosAttentionImpl::forward(const Tensor& x, TimeCache* cache) {
  const Tensor h = norm_->forward(x);
  const Tensor q = to_q_->forward(h), v = to_v_->forward(h);
  // A bias of the keys shifts all scores of a query alike, which softmax does not see. Times zero,
  // its gradient is the true one, zero, instead of rounding noise.
  const Tensor k = torch::linear(h, to_k_->weight.flatten(1), to_k_->bias * 0);
  const Tensor y = axis_ == AttentionAxis::kSpace ? over_space(q, k, v) : over_time(q, k, v, cache);
  return to_out_->forward(y).add_(x);
}

Tensor CosmosAttentionImpl::over_space(const Tensor& q, const Tensor& k, const Tensor& v) const {
  auto [B, T, H, W, C] = dims<5>(q);
  const std::vector<int64_t> frames{B * T, 1, H * W, C};
  return torch::scaled_dot_product_attention(q.view(frames), k.view(frames), v.view(frames))
      .reshape({B, T, H, W, C});
}

Tensor CosmosAttentionImpl::over_time(const Tensor& q, Tensor k, Tensor v, TimeCache* cache) const {
  auto [B, T, H, W, C] = dims<5>(q);
  if (cache) {
    int index = 0;
    for (Tensor* rows : {&k, &v}) {
      Tensor& past = cache->slot(*this, index++);
      if (past.defined()) *rows = torch::cat({past, *rows}, 1);
      past = *rows;
    }
  }
  auto pixels = [](const Tensor& x) {  // [B, T, H, W, C] -> [B H W, T, C]
    return x.flatten(2, 3).transpose(1, 2).flatten(0, 1);
  };
  // A handful of frames for each of many pixels: plain products beat fused attention here, and its
  // gradients of q and k stay exactly zero where there is only one frame to look at.
  const int64_t total = k.size(1);
  const Tensor later = torch::ones({T, total}, q.options().dtype(torch::kBool)).triu(total - T + 1);
  const Tensor scores =
      torch::bmm(pixels(q) / std::sqrt(static_cast<double>(C)), pixels(k).transpose(1, 2));
  const double hidden = -std::numeric_limits<double>::infinity();
  const Tensor y = torch::bmm(scores.masked_fill(later, hidden).softmax(-1), pixels(v));
  return y.view({B, H * W, T, C}).transpose(1, 2).reshape({B, T, H, W, C});
}

CosmosDownsampleImpl::CosmosDownsampleImpl(int64_t channels, bool space, bool time) {
  if (space) conv1_ = register_module("conv1", cosmos_space_conv(channels, channels, 2, 0));
  if (time) conv2_ = register_module("conv2", cosmos_time_conv(channels, channels, 2));
  if (space || time) conv3_ = register_module("conv3", cosmos_point_conv(channels, channels));
}

Tensor CosmosDownsampleImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = x;
  if (conv1_) {
    // One row and column of zeros below and to the right; the pooling windows never reach them.
    const Tensor padded = torch::constant_pad_nd(h, {0, 0, 0, 1, 0, 1});
    h = conv1_->forward(padded).add_(halve_space(h));
  }
  if (conv2_) {
    // Means of pairs of frames, frame 0 of the clip with itself.
    const bool start = !swap_past(h, 1, 0, FrontPad::kRepeatFirst, cache, *this).defined();
    const Tensor pairs = start ? torch::cat({h.narrow(1, 0, 1), h}, 1) : h;
    h = conv2_->forward(h, cache).add_(pairs.unflatten(1, {-1, 2}).mean(2));
  }
  return conv3_ ? conv3_->forward(h) : h;
}

CosmosUpsampleImpl::CosmosUpsampleImpl(int64_t channels, bool space, bool time) {
  if (time) conv1_ = register_module("conv1", cosmos_time_conv(channels, channels));
  if (space) conv2_ = register_module("conv2", cosmos_space_conv(channels, channels));
  if (space || time) conv3_ = register_module("conv3", cosmos_point_conv(channels, channels));
}

Tensor CosmosUpsampleImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = x;
  if (conv1_) {
    h = h.repeat_interleave(2, 1);
    if (!cache || cache->first_chunk()) h = h.narrow(1, 1, h.size(1) - 1);
    h = conv1_->forward(h, cache).add_(h);
  }
  if (conv2_) {
    h = double_space(h);
    h = conv2_->forward(h).add_(h);
  }
  return conv3_ ? conv3_->forward(h) : h;
}

}  // namespace cosmos::modules
