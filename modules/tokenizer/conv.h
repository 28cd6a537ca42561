#pragma once

// Convolutions over x: [B, T, H, W, C].

#include <array>

#include "modules/tokenizer/time_cache.h"

namespace cosmos::modules {

/// 2-D correlation of every frame by itself, with `pad` zeros around it; a product where the kernel
/// is 1 x 1.  x: [B, T, H, W, C], weight: [O, C, kh, kw], bias: [O] -> [B, T, H', W', O]
Tensor conv_frames(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride = 1,
                   int64_t pad = 0);

/// Frame size doubled by repetition.  x: [B, T, H, W, C] -> [B, T, 2 H, 2 W, C]
Tensor double_space(const Tensor& x);

/// Mean of each 2 x 2 pixels.  x: [B, T, H, W, C] -> [B, T, H / 2, W / 2, C]
Tensor halve_space(const Tensor& x);

/// [B, T, H, W, C] -> [B, C, T, H, W] and back, contiguous.
Tensor channels_to_front(const Tensor& x);
Tensor channels_to_back(const Tensor& x);

/// SiLU of a tensor that nothing else uses: in place where no graph is recorded.
Tensor silu_of(Tensor x);

struct CausalConvOptions {
  int64_t in = 0;
  int64_t out = 0;
  std::array<int64_t, 3> kernel{1, 1, 1};  ///< kt, kh, kw
  std::array<int64_t, 3> stride{1, 1, 1};
  int64_t space_pad = 0;  ///< zeros around each frame
  int64_t front = 0;      ///< frames before frame 0
  FrontPad pad = FrontPad::kZeros;
};

/// Convolution whose output at time t sees no later input. Parameters as torch.nn.Conv3d:
/// weight [out, in, kt, kh, kw] and bias [out], initialised alike.
class CausalConv3dImpl : public torch::nn::Module {
 public:
  explicit CausalConv3dImpl(const CausalConvOptions& options);

  /// x: [B, T, H, W, in] -> [B, T', H', W', out]. With a cache, T of later chunks must be a
  /// multiple of the temporal stride.
  Tensor forward(const Tensor& x, TimeCache* cache = nullptr);

  Tensor weight, bias;

 private:
  CausalConvOptions options_;
};
TORCH_MODULE(CausalConv3d);

/// Convolution of every frame by itself; parameters as torch.nn.Conv2d.
class FrameConv2dImpl : public torch::nn::Module {
 public:
  FrameConv2dImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, int64_t pad = 0);
  Tensor forward(const Tensor& x);

  Tensor weight, bias;  ///< [out, in, kernel, kernel], [out]

 private:
  int64_t stride_, pad_;
};
TORCH_MODULE(FrameConv2d);

}  // namespace cosmos::modules
