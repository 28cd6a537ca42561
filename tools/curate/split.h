#pragma once

// Where clips begin and end.

#include "tools/curate/config.h"
#include "tools/curate/video.h"

namespace cosmos::curate {

/// First frames of scenes: 0, then every frame whose content score reaches the threshold, at least
/// `min_scene_frames` after the cut before: PySceneDetect's content detector, filter SUPPRESS.
std::vector<int64_t> content_cuts(const std::vector<FrameFeatures>& frames, double threshold,
                                  int64_t min_scene_frames);

/// The same where the score is at least `min_content` and `threshold` times the mean of the two
/// frames before and the two after: fast motion alone makes no cut. PySceneDetect's adaptive
/// detector.
std::vector<int64_t> adaptive_cuts(const std::vector<FrameFeatures>& frames, double threshold,
                                   double min_content, int64_t min_scene_frames);

/// Cuts the video into parts that tile it. In this order, as cosmos-curate has it: scenes (or
/// shots, or equal lengths), what lies between shots dropped ("transition"), long ones divided,
/// ends cropped (dropped: "crop"), short ones dropped ("too short"). Frames that do not decode are
/// one failed part at the end.
void split_video(Video& video, const SplitConfig& config);

}  // namespace cosmos::curate
