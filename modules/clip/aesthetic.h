#pragma once

// How pleasing a picture is, by its CLIP embedding: the head of "improved-aesthetic-predictor"
// (Schuhmann 2022), whose published weights were trained on ratings from 1 to 10 over ViT-L/14.

#include <filesystem>
#include <vector>

#include "modules/core/linear.h"
#include "modules/core/model.h"

namespace cosmos::modules {

/// y = W5 W4 ... W1 x: five products with nothing but dropout between them in training, which is
/// left out here.  Parameters: layers.{0, 2, 4, 6, 7}; dropouts have the numbers between.
class AestheticPredictor : public Model {
 public:
  /// Config: `widths`, 768, 1024, 128, 64, 16, 1 in the published one.
  explicit AestheticPredictor(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "AestheticPredictor"; }
  Json config_json() const override;
  /// forward: embeddings -> scores
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  /// embeddings: [B, widths[0]], of any length; they are brought to length 1 -> scores [B]
  Tensor forward(const Tensor& embeddings);
  int64_t width() const { return widths_.front(); }

 private:
  std::vector<int64_t> widths_;
  std::vector<Linear> layers_;
};

/// The head of a file of weights (sac+logos+ava1-l14-linearMSE.pth, or safetensors), its widths
/// from the shapes there; in eval mode. Throws Error on any other file.
std::shared_ptr<AestheticPredictor> load_aesthetic(const std::filesystem::path& weights);

}  // namespace cosmos::modules
