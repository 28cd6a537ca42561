#pragma once

// The vision tower: pixels of images and frames to tokens of the language model.

#include <functional>

#include "modules/core/run_block.h"
#include "modules/vlm/vision_blocks.h"
#include "modules/vlm/vision_plan.h"

namespace cosmos::modules {

/// Model::run_block, handed to a part of the model.
using RunBlock = std::function<Tensors(const std::string& name, torch::nn::Module& block,
                                       const Tensors& inputs, const BlockFn& fn)>;

struct VisionFeatures {
  Tensor tokens;      ///< [N / m², out], in the order of the grids
  Tensors deepstack;  ///< the same for each of the first layers of the language model (Qwen3-VL)
};

/// Registers its parts in a container of the model ("model.visual"): patch_embed, pos_embed,
/// blocks.N, merger, deepstack_merger_list.N.
class VisionTower {
 public:
  VisionTower(torch::nn::Module& visual, const VisionConfig& config, LmFamily family);

  /// pixels: [N, C T P P], N patches of `grids` in their order. Throws Error where they do not fit.
  VisionFeatures forward(const Tensor& pixels, const Grids& grids, const RunBlock& run) const;

 private:
  Tensor embed(const Tensor& pixels, const Grids& grids, const RunBlock& run) const;
  Tensor run_merger(const std::string& name, const VisionMerger& merger, const Tensor& x,
                    const RunBlock& run) const;
  bool attends_frames(int64_t block) const;

  VisionConfig config_;
  bool windows_;
  VisionPatchEmbed patch_embed_{nullptr};
  Embedding pos_embed_{nullptr};
  std::vector<VisionBlock> blocks_;
  VisionMerger merger_{nullptr};
  std::vector<VisionMerger> deepstack_mergers_;
};

}  // namespace cosmos::modules
