// Named tensors -> LanguageModelInputs, and the checks on them.

#include "modules/core/fields.h"
#include "modules/vlm/language_model.h"

namespace cosmos::modules {
namespace {

bool is_integer(const Tensor& x) {
  return c10::isIntegralType(x.scalar_type(), /*includeBool=*/true);
}

/// Throws unless x has the shape of input_ids.
void check_like_ids(const Tensor& x, const Tensor& ids, const char* name) {
  require(!x.defined() || x.sizes() == ids.sizes(), name, ": expected the shape of input_ids ",
          ids.sizes(), ", got ", x.sizes());
}

void check_pair(const Tensor& pixels, const Tensor& grid, const char* pixels_name,
                const char* grid_name) {
  require(pixels.defined() == grid.defined(), pixels.defined() ? grid_name : pixels_name,
          ": missing beside ", pixels.defined() ? pixels_name : grid_name);
}

}  // namespace

LanguageModelInputs language_model_inputs(const TensorMap& inputs, const std::string& class_name) {
  LanguageModelInputs out;
  const std::map<std::string, Tensor*> slots = {
      {"input_ids", &out.input_ids},
      {"attention_mask", &out.attention_mask},
      {"position_ids", &out.position_ids},
      {"mm_token_type_ids", &out.mm_token_type_ids},
      {"pixel_values", &out.pixel_values},
      {"image_grid_thw", &out.image_grid_thw},
      {"pixel_values_videos", &out.pixel_values_videos},
      {"video_grid_thw", &out.video_grid_thw},
      {"second_per_grid_ts", &out.second_per_grid_ts},
  };
  std::vector<std::string> known;
  for (const auto& [name, slot] : slots) known.push_back(name);
  for (const auto& [name, tensor] : inputs) {
    const auto slot = slots.find(name);
    if (slot == slots.end()) {
      const std::string near = nearest(name, known);
      fail(name, ": not an input of ", class_name,
           near.empty() ? "" : " (did you mean " + near + "?)");
    }
    *slot->second = tensor;
  }
  require(out.input_ids.defined(), "input_ids: missing");
  return out;
}

void LanguageModel::check(const LanguageModelInputs& in) const {
  const Tensor& ids = in.input_ids;
  require(ids.defined() && ids.dim() == 2 && ids.scalar_type() == torch::kInt64 && ids.numel() > 0,
          "input_ids: expected int64 [B, L], got ",
          ids.defined() ? c10::toString(ids.scalar_type()) : "nothing",
          ids.defined() ? ids.sizes() : at::IntArrayRef());
  if (ids.is_cpu()) {
    const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
    require(low >= 0 && high < config_.text.vocab_size, "input_ids: expected tokens in [0, ",
            config_.text.vocab_size, "), got ", low < 0 ? low : high);
  }
  check_like_ids(in.attention_mask, ids, "attention_mask");
  check_like_ids(in.mm_token_type_ids, ids, "mm_token_type_ids");
  if (const Tensor& p = in.position_ids; p.defined()) {
    const bool axes = p.dim() == 3 && (p.size(0) == 3 || p.size(0) == 4) &&
                      p.size(1) == ids.size(0) && p.size(2) == ids.size(1);
    require(is_integer(p) && (axes || p.sizes() == ids.sizes()),
            "position_ids: expected integers [3 or 4, B, L] or [B, L] with input_ids ", ids.sizes(),
            ", got ", p.sizes());
  }
  const bool visual = in.pixel_values.defined() || in.pixel_values_videos.defined() ||
                      in.image_grid_thw.defined() || in.video_grid_thw.defined();
  require(!visual || config_.has_vision(), class_name(),
          " has no vision tower: leave images and videos out");
  check_pair(in.pixel_values, in.image_grid_thw, "pixel_values", "image_grid_thw");
  check_pair(in.pixel_values_videos, in.video_grid_thw, "pixel_values_videos", "video_grid_thw");
  require(in.offsets.empty() || (ids.size(0) == 1 && !in.attention_mask.defined()),
          "packed sequences: expected one row without attention_mask, got ", ids.sizes());
}

}  // namespace cosmos::modules
