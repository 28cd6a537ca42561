#pragma once

// Networks that turn pictures or clips into features, as their authors hand them out: TorchScript
// files, such as NVIDIA's inception-2015-12-05.pt (FID), i3d_torchscript.pt (FVD) and vgg16.pt
// (LPIPS).
//
// A TorchScript file is a program, and it runs: name only files that you trust.

#include <filesystem>
#include <memory>

#include "modules/core/tensor.h"

namespace cosmos::modules {

class FeatureNetwork {
 public:
  /// Throws Error when the file is not TorchScript with a forward().
  explicit FeatureNetwork(const std::filesystem::path& file);
  ~FeatureNetwork();

  /// x: pictures [n, 3, H, W] or clips [n, 3, T, H, W], values in [0, 255], float32 -> [n, d].
  /// Options that those files' forward() has are set as FID and FVD are defined: return_features,
  /// and for clips rescale and resize. Throws Error on another result.
  Tensor features(const Tensor& x);
  /// Features whose squared distance is LPIPS (return_lpips). Throws Error where forward() has
  /// none.
  Tensor lpips_features(const Tensor& x);

 private:
  struct Network;
  Tensor run(const Tensor& x, const std::vector<const char*>& switches);

  std::unique_ptr<Network> network_;
};

}  // namespace cosmos::modules
