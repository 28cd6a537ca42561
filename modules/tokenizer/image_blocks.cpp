#include "modules/tokenizer/image_blocks.h"

#include "modules/core/init.h"

namespace cosmos::modules {

ImageNormImpl::ImageNormImpl(int64_t channels) {
  weight_ = register_parameter("weight", torch::empty({channels}));
  bias_ = register_parameter("bias", torch::empty({channels}));
  if (SkipInit::active()) return;
  torch::NoGradGuard no_grad;
  weight_.fill_(1);
  bias_.zero_();
}

Tensor ImageNormImpl::forward(const Tensor& x) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor frames = x.reshape({B * T, H, W, C}).permute({0, 3, 1, 2});
  const Tensor y = torch::group_norm(frames, kGroups, weight_, bias_, 1e-6);
  return y.permute({0, 2, 3, 1}).contiguous().view({B, T, H, W, C});
}

ImageResnetImpl::ImageResnetImpl(int64_t in, int64_t out)
    : norm1_(in), norm2_(out), conv1_(in, out, 3, 1, 1), conv2_(out, out, 3, 1, 1) {
  register_module("norm1", norm1_);
  register_module("conv1", conv1_);
  register_module("norm2", norm2_);
  register_module("conv2", conv2_);
  if (in != out) shortcut_ = register_module("conv_shortcut", FrameConv2d(in, out, 1));
}

Tensor ImageResnetImpl::forward(const Tensor& x) {
  Tensor h = conv1_->forward(silu_of(norm1_->forward(x)));
  h = conv2_->forward(silu_of(norm2_->forward(h)));
  return h + (shortcut_ ? shortcut_->forward(x) : x);
}

ImageAttentionImpl::ImageAttentionImpl(int64_t channels)
    : norm_(channels),
      to_q_(channels, channels, 1),
      to_k_(channels, channels, 1),
      to_v_(channels, channels, 1),
      to_out_(channels, channels, 1) {
  register_module("norm", norm_);
  register_module("to_q", to_q_);
  register_module("to_k", to_k_);
  register_module("to_v", to_v_);
  register_module("to_out", torch::nn::ModuleList(to_out_));
}

Tensor ImageAttentionImpl::forward(const Tensor& x) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor h = norm_->forward(x);
  // Softmax does not see a bias of the keys: times zero, its gradient is zero instead of noise.
  const Tensor k = torch::linear(h, to_k_->weight.flatten(1), to_k_->bias * 0);
  const std::vector<int64_t> frames{B * T, 1, H * W, C};
  const Tensor y = torch::scaled_dot_product_attention(
      to_q_->forward(h).view(frames), k.view(frames), to_v_->forward(h).view(frames));
  return x + to_out_->forward(y.reshape({B, T, H, W, C}));
}

ImageResampleImpl::ImageResampleImpl(int64_t channels, ImageScale scale)
    : scale_(scale),
      conv_(channels, channels, 3, scale == ImageScale::kHalve ? 2 : 1,
            scale == ImageScale::kHalve ? 0 : 1) {
  register_module("conv", conv_);
}

Tensor ImageResampleImpl::forward(const Tensor& x) {
  return conv_->forward(scale_ == ImageScale::kHalve ? torch::constant_pad_nd(x, {0, 0, 0, 1, 0, 1})
                                                     : double_space(x));
}

ImageLevelImpl::ImageLevelImpl(const Options& options) {
  for (int64_t i = 0; i < options.layers; ++i) {
    resnets_->push_back(ImageResnet(i == 0 ? options.in : options.out, options.out));
    if (options.attention) attentions_->push_back(ImageAttention(options.out));
  }
  register_module("resnets", resnets_);
  register_module("attentions", attentions_);
  if (!options.scale) return;
  resample_ = ImageResample(options.out, *options.scale);
  register_module(*options.scale == ImageScale::kHalve ? "downsamplers" : "upsamplers",
                  torch::nn::ModuleList(resample_));
}

Tensor ImageLevelImpl::forward(const Tensor& x) {
  Tensor h = x;
  for (std::size_t i = 0; i < resnets_->size(); ++i) {
    h = resnets_->at<ImageResnetImpl>(i).forward(h);
    if (!attentions_->is_empty()) h = attentions_->at<ImageAttentionImpl>(i).forward(h);
  }
  return resample_ ? resample_->forward(h) : h;
}

ImageMidBlockImpl::ImageMidBlockImpl(int64_t channels)
    : first_(channels, channels), last_(channels, channels), attention_(channels) {
  register_module("resnets", torch::nn::ModuleList(first_, last_));
  register_module("attentions", torch::nn::ModuleList(attention_));
}

Tensor ImageMidBlockImpl::forward(const Tensor& x) {
  return last_->forward(attention_->forward(first_->forward(x)));
}

}  // namespace cosmos::modules
