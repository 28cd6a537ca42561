#include "modules/dit/parallel_plan.h"

#include "modules/dit/transformer.h"

namespace cosmos::modules {

ParallelPlan CosmosTransformer3DModel::parallel_plan() const {
  ParallelPlan plan;
  const auto add = [&plan](const std::string& name, Split split, int64_t unit, bool tokens = true) {
    plan.push_back({.name = name, .split = split, .unit = unit, .tokens = tokens});
  };
  const int64_t head = config_.attention_head_dim;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const std::string block = "transformer_blocks." + std::to_string(i) + ".";
    for (const char* name : {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q"})
      add(block + name, Split::kColumn, head);
    for (const char* text : {"attn2.to_k", "attn2.to_v"})
      add(block + text, Split::kColumn, head, /*tokens=*/false);
    if (config_.has_image_context()) {
      add(block + "attn2.q_img", Split::kColumn, head);
      for (const char* image : {"attn2.k_img", "attn2.v_img"})
        add(block + image, Split::kColumn, head, /*tokens=*/false);
    }
    for (const char* out : {"attn1.to_out.0", "attn2.to_out.0"})
      add(block + out, Split::kRow, head);
    add(block + "ff.net.0.proj", Split::kColumn, 1);
    add(block + "ff.net.2", Split::kRow, 1);
  }
  return plan;
}

TensorTraffic tensor_traffic(const DitConfig& config, double tokens, bool sequence) {
  // Self-attention, cross-attention, MLP: each gathers once and reduces once, or reduces for all.
  const double once = tokens * static_cast<double>(config.hidden_size());
  const auto& patch = config.patch_size;
  const auto out = static_cast<double>(patch[0] * patch[1] * patch[2] * config.out_channels);
  return {.block = 3 * 2 * once, .head = sequence ? tokens * out : 0};
}

}  // namespace cosmos::modules
