#include "modules/vlm/vision_tower.h"

#include <algorithm>
#include <cmath>

namespace cosmos::modules {
namespace {

const std::string kPrefix = "model.visual.";

// Rows of x, m² at a time, in the order of the merged tokens `order`.
Tensor reorder(const Tensor& x, const Tensor& order, int64_t unit) {
  return x.view({-1, unit, x.size(1)}).index_select(0, order).view(x.sizes());
}

}  // namespace

VisionTower::VisionTower(torch::nn::Module& visual, const VisionConfig& config, LmFamily family)
    : config_(config), windows_(family == LmFamily::kQwen25Vl) {
  patch_embed_ = visual.register_module("patch_embed", VisionPatchEmbed(config, !windows_));
  if (!windows_)
    pos_embed_ = visual.register_module(
        "pos_embed", Embedding(config.num_position_embeddings, config.hidden_size));
  auto blocks = add_container(visual, "blocks");
  for (int64_t i = 0; i < config.depth; ++i)
    blocks_.push_back(blocks->register_module(std::to_string(i), VisionBlock(config, family)));
  merger_ = visual.register_module("merger", VisionMerger(config, family));
  if (windows_) return;
  auto mergers = add_container(visual, "deepstack_merger_list");
  for (std::size_t i = 0; i < config.deepstack_visual_indexes.size(); ++i)
    deepstack_mergers_.push_back(mergers->register_module(
        std::to_string(i), VisionMerger(config, family, /*norm_after_merge=*/true)));
}

bool VisionTower::attends_frames(int64_t block) const {
  const auto& full = config_.fullatt_block_indexes;
  return !windows_ || std::find(full.begin(), full.end(), block) != full.end();
}

Tensor VisionTower::embed(const Tensor& pixels, const Grids& grids, const RunBlock& run) const {
  Tensor x = run(kPrefix + "patch_embed", *patch_embed_.ptr(), {pixels},
                 [patch_embed = patch_embed_](const Tensors& inputs) mutable -> Tensors {
                   return {patch_embed(inputs[0])};
                 })[0];
  if (!pos_embed_) return x;
  const auto side =
      static_cast<int64_t>(std::sqrt(static_cast<double>(config_.num_position_embeddings)));
  const InterpolationPlan plan = interpolation_plan(grids, config_.spatial_merge_size, side);
  const Tensor rows = plan.rows.to(x.device()), weights = plan.weights.to(x.device());
  return run(kPrefix + "pos_embed", *pos_embed_.ptr(), {x},
             [pos_embed = pos_embed_, rows, weights](const Tensors& inputs) mutable -> Tensors {
               const Tensor positions = pos_embed(rows);
               const Tensor blend = weights.to(positions.scalar_type()).unsqueeze(-1);
               return {inputs[0] + (positions * blend).sum(1)};
             })[0];
}

Tensor VisionTower::run_merger(const std::string& name, const VisionMerger& merger, const Tensor& x,
                               const RunBlock& run) const {
  return run(name, *merger.ptr(), {x},
             [m = merger](const Tensors& inputs) mutable -> Tensors { return {m(inputs[0])}; })[0];
}

VisionFeatures VisionTower::forward(const Tensor& pixels, const Grids& grids,
                                    const RunBlock& run) const {
  require(pixels.dim() == 2 && pixels.size(0) == patches(grids) &&
              pixels.size(1) == config_.patch_features(),
          "pixel values: expected [", patches(grids), " patches of the grids, ",
          config_.patch_features(), " numbers of a patch], got ", pixels.sizes());
  const int64_t merge = config_.spatial_merge_size;
  RopeTables rope = vision_rope(config_.rope_theta(), config_.hidden_size / config_.num_heads,
                                patch_positions(grids, merge).to(pixels.device()));
  const std::vector<int64_t> frames = frame_offsets(grids);
  Tensor x = embed(pixels, grids, run);

  WindowPlan windows;
  if (windows_) {
    windows = window_plan(grids, merge, config_.window_size / merge / config_.patch_size);
    windows.order = windows.order.to(x.device());
    for (Tensor* tensor : {&x, &rope.cos, &rope.sin})
      *tensor = reorder(*tensor, windows.order, config_.merge_unit());
  }

  VisionFeatures features;
  const auto& deepstack = config_.deepstack_visual_indexes;
  for (int64_t i = 0; i < config_.depth; ++i) {
    const auto& offsets = attends_frames(i) ? frames : windows.offsets;
    x = run(kPrefix + "blocks." + std::to_string(i), *blocks_[i].ptr(), {x},
            [block = blocks_[i], rope, offsets](const Tensors& inputs) mutable -> Tensors {
              return {block(inputs[0], rope, offsets)};
            })[0];
    if (windows_) continue;
    const auto found = std::find(deepstack.begin(), deepstack.end(), i);
    if (found == deepstack.end()) continue;
    const auto index = static_cast<std::size_t>(found - deepstack.begin());
    features.deepstack.push_back(
        run_merger(kPrefix + "deepstack_merger_list." + std::to_string(index),
                   deepstack_mergers_[index], x, run));
  }
  features.tokens = run_merger(kPrefix + "merger", merger_, x, run);
  if (windows_) features.tokens = features.tokens.index_select(0, windows.order.argsort());
  return features;
}

}  // namespace cosmos::modules
