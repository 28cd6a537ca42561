#pragma once

// Several cameras at once: what a generation with a multi-view transformer does otherwise.
//
// The views of a clip stand one after another along T, in latents, pixels and text alike, and each
// is encoded and decoded for itself.

#include <string>
#include <vector>

#include "modules/dit/multiview_transformer.h"
#include "modules/pipeline/denoise.h"
#include "modules/pipeline/family.h"
#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::modules {

/// The cameras of the released driving models, by their index: front_wide, cross_right, rear_right,
/// rear, rear_left, cross_left, front_tele.
const std::vector<std::string>& camera_names();
/// Of a name above or a number. Throws Error, with the nearest name, for anything else; `where`
/// names the option or setting.
int64_t camera_index(const std::string& name, const std::string& where);
/// The name of a camera, or its number where it has none.
std::string camera_name(int64_t index);

/// The model where it is a multi-view one, else null.
const CosmosMultiViewTransformer3DModel* multi_view(const CosmosTransformer3DModel& transformer);

/// Defaults of NVIDIA's multi-view inference where they are not the family's: `frames` a view, 10
/// frames a second and given frames' level (Predict2), or 30, guidance 3 as NVIDIA counts it, which
/// is 2 here, and given frames at the clip's time (Predict2.5). Predict2's multi-view code tells
/// RoPE the frame rate, against its own config.
WorldFamily multi_view_settings(WorldFamily family, int64_t frames);

/// `per_view` of each view, put together along `dim`.
template <typename Fn>
Tensor each_view(int64_t views, int64_t dim, Fn per_view) {
  Tensors parts;
  for (int64_t v = 0; v < views; ++v) parts.push_back(per_view(v));
  return views == 1 ? parts.front() : torch::cat(parts, dim);
}

}  // namespace cosmos::modules
