#pragma once

// Building blocks of Cosmos Tokenizer's image networks: plain 2-D convolutions, GroupNorm of 32
// groups.  x: [B, T, H, W, C]; every frame is an image of its own.

#include <optional>

#include "modules/tokenizer/conv.h"

namespace cosmos::modules {

/// GroupNorm over the channels and pixels of each frame, eps 1e-6; parameters as
/// torch.nn.GroupNorm.
class ImageNormImpl : public torch::nn::Module {
 public:
  static constexpr int64_t kGroups = 32;
  explicit ImageNormImpl(int64_t channels);
  Tensor forward(const Tensor& x);

 private:
  Tensor weight_, bias_;
};
TORCH_MODULE(ImageNorm);

/// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through a 1x1 convolution when widths differ.
class ImageResnetImpl : public torch::nn::Module {
 public:
  ImageResnetImpl(int64_t in, int64_t out);
  Tensor forward(const Tensor& x);

 private:
  ImageNorm norm1_, norm2_;
  FrameConv2d conv1_, conv2_, shortcut_{nullptr};
};
TORCH_MODULE(ImageResnet);

/// x + attention with one head over the pixels of a frame.
class ImageAttentionImpl : public torch::nn::Module {
 public:
  explicit ImageAttentionImpl(int64_t channels);
  Tensor forward(const Tensor& x);

 private:
  ImageNorm norm_;
  FrameConv2d to_q_, to_k_, to_v_, to_out_;
};
TORCH_MODULE(ImageAttention);

/// Halves (a strided convolution over one row and column of zeros below and to the right) or
/// doubles (repetition, then a convolution) the resolution. The convolution is the child "conv".
enum class ImageScale { kHalve, kDouble };
class ImageResampleImpl : public torch::nn::Module {
 public:
  ImageResampleImpl(int64_t channels, ImageScale scale);
  Tensor forward(const Tensor& x);

 private:
  ImageScale scale_;
  FrameConv2d conv_;
};
TORCH_MODULE(ImageResample);

/// Residual blocks, each followed by attention where the level has it, then a change of resolution.
class ImageLevelImpl : public torch::nn::Module {
 public:
  struct Options {
    int64_t in = 0, out = 0, layers = 0;
    bool attention = false;
    std::optional<ImageScale> scale = std::nullopt;
  };
  explicit ImageLevelImpl(const Options& options);
  Tensor forward(const Tensor& x);

 private:
  torch::nn::ModuleList resnets_, attentions_;
  ImageResample resample_{nullptr};
};
TORCH_MODULE(ImageLevel);

/// resnet, attention, resnet.
class ImageMidBlockImpl : public torch::nn::Module {
 public:
  explicit ImageMidBlockImpl(int64_t channels);
  Tensor forward(const Tensor& x);

 private:
  ImageResnet first_, last_;
  ImageAttention attention_;
};
TORCH_MODULE(ImageMidBlock);

}  // namespace cosmos::modules
