#include "modules/tokenizer/conv.h"

#include <cmath>

#include "modules/core/init.h"
#include "ops/causal_conv/causal_conv.h"

namespace cosmos::modules {
namespace {

void initialise_like_conv(Tensor& weight, Tensor& bias) {
  if (SkipInit::active()) return;
  torch::NoGradGuard no_grad;
  const int64_t fan_in = weight.numel() / weight.size(0);
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
  weight.uniform_(-bound, bound);
  bias.uniform_(-bound, bound);
}

}  // namespace

Tensor conv_frames(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride,
                   int64_t pad) {
  if (weight.size(2) == 1 && weight.size(3) == 1 && stride == 1)
    return torch::linear(x, weight.flatten(1), bias);
  auto [B, T, H, W, C] = dims<5>(x);
  Tensor frames = x.reshape({B * T, H, W, C}).permute({0, 3, 1, 2});  // channels-last
  Tensor y = torch::conv2d(frames, weight.contiguous(at::MemoryFormat::ChannelsLast), bias,
                           {stride, stride}, {pad, pad});
  y = y.permute({0, 2, 3, 1}).contiguous();
  return y.view({B, T, y.size(1), y.size(2), y.size(3)});
}

Tensor double_space(const Tensor& x) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor frames = x.reshape({B * T, H, W, C}).permute({0, 3, 1, 2});
  const Tensor y = torch::upsample_nearest2d(frames, {2 * H, 2 * W});
  return y.permute({0, 2, 3, 1}).contiguous().view({B, T, 2 * H, 2 * W, C});
}

Tensor halve_space(const Tensor& x) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor frames = x.reshape({B * T, H, W, C}).permute({0, 3, 1, 2});
  return torch::avg_pool2d(frames, {2, 2})
      .permute({0, 2, 3, 1})
      .contiguous()
      .view({B, T, H / 2, W / 2, C});
}

Tensor channels_to_front(const Tensor& x) {
  return x.permute({0, 4, 1, 2, 3}).contiguous();
}

Tensor channels_to_back(const Tensor& x) {
  return x.permute({0, 2, 3, 4, 1}).contiguous();
}

Tensor silu_of(Tensor x) {
  return torch::GradMode::is_enabled() ? torch::silu(x) : torch::silu_(x);
}

CausalConv3dImpl::CausalConv3dImpl(const CausalConvOptions& options) : options_(options) {
  const auto& k = options.kernel;
  weight = register_parameter("weight", torch::empty({options.out, options.in, k[0], k[1], k[2]}));
  bias = register_parameter("bias", torch::empty({options.out}));
  initialise_like_conv(weight, bias);
}

Tensor CausalConv3dImpl::forward(const Tensor& x, TimeCache* cache) {
  const auto& [kernel, stride] = std::tie(options_.kernel, options_.stride);
  if (kernel[0] == 1 && stride[0] == 1 && stride[1] == stride[2])
    return conv_frames(x, weight.squeeze(2), bias, stride[1], options_.space_pad);
  const Tensor past =
      swap_past(x, options_.front, kernel[0] - stride[0], options_.pad, cache, *this);
  return ops::causal_conv(x, past.defined() ? std::optional(past) : std::nullopt, weight, bias,
                          stride, options_.space_pad, options_.front,
                          options_.pad == FrontPad::kRepeatFirst);
}

FrameConv2dImpl::FrameConv2dImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                 int64_t pad)
    : stride_(stride), pad_(pad) {
  weight = register_parameter("weight", torch::empty({out, in, kernel, kernel}));
  bias = register_parameter("bias", torch::empty({out}));
  initialise_like_conv(weight, bias);
}

Tensor FrameConv2dImpl::forward(const Tensor& x) {
  return conv_frames(x, weight, bias, stride_, pad_);
}

}  // namespace cosmos::modules
