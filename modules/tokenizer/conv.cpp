#include "modules/tokenizer/conv.h"

#include <cmath>

#include "modules/core/init.h"

namespace cosmos::modules {
namespace {

// Input bytes below which the temporal taps of a full 3-D kernel are laid side by side on the
// channels (one large convolution); above, one convolution a tap needs a third of the memory.
constexpr int64_t kSideBySideBytes = 64 << 20;

// Frames kt-tap k sees: x[:, k], x[:, k + st], ...
Tensor tap(const Tensor& x, int64_t k, int64_t frames, int64_t stride) {
  return x.slice(1, k, k + (frames - 1) * stride + 1, stride);
}

Tensor conv2d_frames(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     std::array<int64_t, 2> stride, int64_t pad) {
  auto [B, T, H, W, C] = dims<5>(x);
  Tensor frames = x.reshape({B * T, H, W, C}).permute({0, 3, 1, 2});  // channels-last
  Tensor y = torch::conv2d(frames, weight.contiguous(at::MemoryFormat::ChannelsLast), bias, stride,
                           {pad, pad});
  y = y.permute({0, 2, 3, 1}).contiguous();
  return y.view({B, T, y.size(1), y.size(2), y.size(3)});
}

// Kernel (kt, 1, 1): one product a tap, added up in place.
Tensor conv_time(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride) {
  auto [B, T, H, W, C] = dims<5>(x);
  const int64_t kt = weight.size(2), frames = (T - kt) / stride + 1;
  Tensor y;
  for (int64_t k = 0; k < kt; ++k) {
    const Tensor rows = tap(x, k, frames, stride).reshape({B * frames * H * W, C});
    const Tensor w = weight.select(2, k).flatten(1).t();
    if (k == 0)
      y = torch::addmm(bias, rows, w);
    else
      y.addmm_(rows, w);
  }
  return y.view({B, frames, H, W, -1});
}

Tensor conv_space_time(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       std::array<int64_t, 3> stride, int64_t pad) {
  const int64_t kt = weight.size(2), frames = (x.size(1) - kt) / stride[0] + 1;
  if (static_cast<int64_t>(x.nbytes()) * kt <= kSideBySideBytes) {
    Tensors taps;
    for (int64_t k = 0; k < kt; ++k) taps.push_back(tap(x, k, frames, stride[0]));
    return conv2d_frames(torch::cat(taps, -1), weight.transpose(1, 2).flatten(1, 2), bias,
                         {stride[1], stride[2]}, pad);
  }
  Tensor y;
  for (int64_t k = 0; k < kt; ++k) {
    const Tensor part = conv2d_frames(tap(x, k, frames, stride[0]), weight.select(2, k),
                                      k == 0 ? bias : Tensor(), {stride[1], stride[2]}, pad);
    y = k == 0 ? part : y.add_(part);
  }
  return y;
}

void initialise_like_conv(Tensor& weight, Tensor& bias) {
  if (SkipInit::active()) return;
  torch::NoGradGuard no_grad;
  const int64_t fan_in = weight.numel() / weight.size(0);
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
  weight.uniform_(-bound, bound);
  bias.uniform_(-bound, bound);
}

}  // namespace

Tensor conv_frames(const Tensor& x, const Tensor& weight, const Tensor& bias,
                   std::array<int64_t, 3> stride, int64_t space_pad) {
  if (x.size(1) < weight.size(2))  // no window is full
    return torch::empty({x.size(0), 0, x.size(2), x.size(3), weight.size(0)}, x.options());
  const bool time = weight.size(2) > 1, space = weight.size(3) > 1 || weight.size(4) > 1;
  if (!time && !space && stride == std::array<int64_t, 3>{1, 1, 1})
    return torch::linear(x, weight.flatten(1), bias);
  if (!time && stride[0] == 1)
    return conv2d_frames(x, weight.squeeze(2), bias, {stride[1], stride[2]}, space_pad);
  if (!x.device().is_cpu()) {
    const Tensor y = torch::conv3d(x.permute({0, 4, 1, 2, 3}),
                                   weight.contiguous(at::MemoryFormat::ChannelsLast3d), bias,
                                   stride, {0, space_pad, space_pad});
    return y.permute({0, 2, 3, 4, 1}).contiguous();
  }
  if (!space && stride[1] == 1 && stride[2] == 1) return conv_time(x, weight, bias, stride[0]);
  return conv_space_time(x, weight, bias, stride, space_pad);
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
  const int64_t kt = options_.kernel[0];
  if (kt == 1) return conv_frames(x, weight, bias, options_.stride, options_.space_pad);
  const Tensor whole =
      with_past(x, options_.front, kt - options_.stride[0], options_.pad, cache, *this);
  return conv_frames(whole, weight, bias, options_.stride, options_.space_pad);
}

FrameConv2dImpl::FrameConv2dImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                 int64_t pad)
    : stride_(stride), pad_(pad) {
  weight = register_parameter("weight", torch::empty({out, in, kernel, kernel}));
  bias = register_parameter("bias", torch::empty({out}));
  initialise_like_conv(weight, bias);
}

Tensor FrameConv2dImpl::forward(const Tensor& x) {
  return conv_frames(x, weight.unsqueeze(2), bias, {1, stride_, stride_}, pad_);
}

}  // namespace cosmos::modules
