#pragma once

// Parts of TransNetV2 (Soucek and Lokoc 2020). Registered names are the public class's.
//
// B clips, T frames, C channels of pictures H x W:  x: [B, C, T, H, W]

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>

#include "modules/core/linear.h"

namespace cosmos::modules {

/// A 3 x 3 x 3 convolution in two, space then time (the "(2+1)D" of Tran et al. 2018), the second
/// dilated.  Parameters: layers.0.weight [2 out, in, 1, 3, 3], layers.1.weight [out, 2 out, 3, 1,
/// 1].
class SeparableConv3dImpl : public torch::nn::Module {
 public:
  SeparableConv3dImpl(int64_t in, int64_t out, int64_t dilation);
  Tensor forward(const Tensor& x);

 private:
  torch::nn::Conv3d space_{nullptr}, time_{nullptr};
};
TORCH_MODULE(SeparableConv3d);

/// Four of them side by side that see 3, 5, 9 and 17 frames (Conv3D_1, _2, _4, _8), normalised.
/// -> [B, 4 filters, T, H, W]
class DilatedConvBlockImpl : public torch::nn::Module {
 public:
  DilatedConvBlockImpl(int64_t in, int64_t filters);
  Tensor forward(const Tensor& x);

 private:
  std::vector<SeparableConv3d> branches_;
  torch::nn::BatchNorm3d bn_{nullptr};
};
TORCH_MODULE(DilatedConvBlock);

/// `count` blocks (DDCNN), the first one's output added to the last one's, pictures halved.
/// -> [B, 4 filters, T, H / 2, W / 2]
class DilatedConvStackImpl : public torch::nn::Module {
 public:
  DilatedConvStackImpl(int64_t in, int64_t filters, int64_t count);
  Tensor forward(Tensor x);

 private:
  std::vector<DilatedConvBlock> blocks_;
};
TORCH_MODULE(DilatedConvStack);

/// Cosine similarities of each frame with the 50 before and after it (0 beyond the window):
/// unit vectors [B, T, N] -> [B, T, 101]
Tensor neighbour_similarities(const Tensor& unit);

/// How alike the frames' features are.  Parameters: projection, fc.
class FrameSimilarityImpl : public torch::nn::Module {
 public:
  explicit FrameSimilarityImpl(int64_t features);
  /// means: [B, T, features], of each stack's pictures -> [B, T, 128]
  Tensor forward(const Tensor& means);

 private:
  Linear projection_, fc_;
};
TORCH_MODULE(FrameSimilarity);

/// How alike the frames' colours are, by histograms of 8 x 8 x 8 bins.  Parameters: fc.
class ColorHistogramsImpl : public torch::nn::Module {
 public:
  ColorHistogramsImpl();
  /// frames: uint8 [B, T, H, W, 3] -> [B, T, 128], of the parameters' dtype
  Tensor forward(const Tensor& frames);

 private:
  Linear fc_;
};
TORCH_MODULE(ColorHistograms);

}  // namespace cosmos::modules
