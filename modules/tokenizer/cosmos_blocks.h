#pragma once

// Building blocks of AutoencoderKLCosmos: 3-D convolutions factored into space and time, causal by
// repeating frame 0.  x: [B, T, H, W, C] throughout.

#include "modules/tokenizer/conv.h"

namespace cosmos::modules {

/// The 1x1x1, 1x3x3 (space) and 3x1x1 (time) convolutions of this network.
CausalConv3d cosmos_point_conv(int64_t in, int64_t out);
CausalConv3d cosmos_space_conv(int64_t in, int64_t out, int64_t stride = 1, int64_t pad = 1);
/// `stride` 2 halves time: 1 + 2 k frames -> 1 + k.
CausalConv3d cosmos_time_conv(int64_t in, int64_t out, int64_t stride = 1);

/// GroupNorm with one group, over the channels and pixels of each frame; affine per channel. eps
/// 1e-6.
class FrameNormImpl : public torch::nn::Module {
 public:
  explicit FrameNormImpl(int64_t channels);
  Tensor forward(const Tensor& x);

 private:
  Tensor weight_, bias_;  // of the child "norm"
};
TORCH_MODULE(FrameNorm);

/// conv_t(conv_s(x)).
class SpaceTimeConvImpl : public torch::nn::Module {
 public:
  SpaceTimeConvImpl(int64_t in, int64_t out);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  CausalConv3d conv_s_, conv_t_;
};
TORCH_MODULE(SpaceTimeConv);

/// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through a 1x1x1 convolution when widths differ.
class CosmosResnetImpl : public torch::nn::Module {
 public:
  CosmosResnetImpl(int64_t in, int64_t out);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  FrameNorm norm1_, norm2_;
  SpaceTimeConv conv1_, conv2_;
  CausalConv3d shortcut_{nullptr};
};
TORCH_MODULE(CosmosResnet);

/// Attention with one head: over the pixels of a frame, or over the past frames of a pixel.
enum class AttentionAxis { kSpace, kTime };
class CosmosAttentionImpl : public torch::nn::Module {
 public:
  CosmosAttentionImpl(int64_t channels, AttentionAxis axis);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  Tensor over_space(const Tensor& q, const Tensor& k, const Tensor& v) const;
  Tensor over_time(const Tensor& q, Tensor k, Tensor v, TimeCache* cache) const;

  AttentionAxis axis_;
  FrameNorm norm_;
  CausalConv3d to_q_, to_k_, to_v_, to_out_;
};
TORCH_MODULE(CosmosAttention);

/// Halves space and/or time: convolution + average pooling, then a 1x1x1 convolution.
class CosmosDownsampleImpl : public torch::nn::Module {
 public:
  CosmosDownsampleImpl(int64_t channels, bool space, bool time);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  CausalConv3d conv1_{nullptr}, conv2_{nullptr}, conv3_{nullptr};
};
TORCH_MODULE(CosmosDownsample);

/// Doubles time and/or space by repetition plus a convolution of it, then a 1x1x1 convolution.
/// Frame 0 is not doubled: 1 + k frames -> 1 + 2 k.
class CosmosUpsampleImpl : public torch::nn::Module {
 public:
  CosmosUpsampleImpl(int64_t channels, bool space, bool time);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  CausalConv3d conv1_{nullptr}, conv2_{nullptr}, conv3_{nullptr};
};
TORCH_MODULE(CosmosUpsample);

}  // namespace cosmos::modules
