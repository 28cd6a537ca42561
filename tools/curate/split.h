#pragma once

// Where clips begin and end.

#include "tools/curate/config.h"
#include "tools/curate/video.h"

namespace cosmos::curate {

/// First frames of scenes: 0, then every frame whose content score reaches the threshold, at least
/// `min_scene_frames` after the cut before and before the end.
std::vector<int64_t> content_cuts(const std::vector<FrameFeatures>& frames, double threshold,
                                  int64_t min_scene_frames);

/// Cuts the video into parts that tile it. In this order, as cosmos-curate has it: scenes (or equal
/// lengths), long ones divided, ends cropped (dropped: "crop"), short ones dropped ("too short").
/// Frames that do not decode are one failed part at the end.
void split_video(Video& video, const SplitConfig& config);

}  // namespace cosmos::curate
