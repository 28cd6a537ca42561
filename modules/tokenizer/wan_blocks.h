#pragma once

// Building blocks of AutoencoderKLWan: 3x3x3 convolutions, causal by zeros before frame 0, channel
// norms, attention inside a frame.  x: [B, T, H, W, C] throughout.

#include "modules/tokenizer/conv.h"

namespace cosmos::modules {

CausalConv3d wan_conv(int64_t in, int64_t out, int64_t kernel = 3);

/// x sqrt(C) / |x| * gamma, |x| over the channels (at least 1e-12, in float32 at least).
class ChannelNormImpl : public torch::nn::Module {
 public:
  /// gamma is [C, 1, 1, 1] in norms of clips and [C, 1, 1] in norms of frames (`rank` ones).
  explicit ChannelNormImpl(int64_t channels, int64_t rank = 3);
  Tensor forward(const Tensor& x);
  /// silu(forward(x)) in one pass.
  Tensor activated(const Tensor& x);

 private:
  Tensor gamma_;
};
TORCH_MODULE(ChannelNorm);

/// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through a 1x1x1 convolution when widths differ.
class WanResnetImpl : public torch::nn::Module {
 public:
  WanResnetImpl(int64_t in, int64_t out);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  ChannelNorm norm1_, norm2_;
  CausalConv3d conv1_, conv2_, shortcut_{nullptr};
};
TORCH_MODULE(WanResnet);

/// Attention with one head over the pixels of each frame.
class WanAttentionImpl : public torch::nn::Module {
 public:
  explicit WanAttentionImpl(int64_t channels);
  Tensor forward(const Tensor& x);

 private:
  ChannelNorm norm_;
  FrameConv2d to_qkv_, proj_;
};
TORCH_MODULE(WanAttention);

/// resnet, attention, resnet.
class WanMidBlockImpl : public torch::nn::Module {
 public:
  explicit WanMidBlockImpl(int64_t channels);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  WanResnet first_, last_;
  WanAttention attention_;
};
TORCH_MODULE(WanMidBlock);

/// Halves space; with `time` also time, where frame 0 passes and the rest is convolved with stride
/// 2: 1 + 2 k frames -> 1 + k.
class WanDownsampleImpl : public torch::nn::Module {
 public:
  WanDownsampleImpl(int64_t channels, bool time);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  FrameConv2d resample_;
  CausalConv3d time_conv_{nullptr};
};
TORCH_MODULE(WanDownsample);

/// With `time` doubles time, where frame 0 passes and the rest becomes pairs of frames out of a
/// causal convolution that does not see frame 0: 1 + k frames -> 1 + 2 k. Then doubles space.
class WanUpsampleImpl : public torch::nn::Module {
 public:
  WanUpsampleImpl(int64_t channels, int64_t out, bool time);
  Tensor forward(const Tensor& x, TimeCache* cache);

 private:
  FrameConv2d resample_;
  CausalConv3d time_conv_{nullptr};
};
TORCH_MODULE(WanUpsample);

/// Shortcut of a Wan 2.2 encoder level: blocks of `ft` x `fs` x `fs` samples become channels,
/// averaged in groups down to `out` channels. Zero frames in front fill the first block.
Tensor average_down(const Tensor& x, int64_t out, int64_t ft, int64_t fs);
/// Shortcut of a Wan 2.2 decoder level: channels repeated and spread over blocks; the first chunk
/// loses its first ft - 1 frames.
Tensor duplicate_up(const Tensor& x, int64_t out, int64_t ft, int64_t fs, bool first_chunk);

}  // namespace cosmos::modules
