#pragma once

// Control videos: made from the clip itself while data are read, or files beside it.

#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/random.h"
#include "modules/core/tensor.h"
#include "trainer/data/video_reader.h"

namespace cosmos::trainer {

/// "edge", "blur" and NVIDIA's name for the latter, "vis".
bool is_computed_control(const std::string& control);

/// "edge,blur" -> its names; none for "".
std::vector<std::string> control_names(const std::string& controls);

/// Throws Error when `strength` is none, or a control is named twice or is a path rather than a
/// folder beside the videos.
void validate_control(const std::string& controls, const std::string& strength,
                      const std::string& where);

/// frames: uint8 [T, H, W, 3] -> the same. With strength "random" edges draw low from [20, 100) and
/// high from low + [50, 150), blur one of its presets and filters: one choice a clip.
Tensor computed_control(const std::string& control, const std::string& strength,
                        const Tensor& frames, modules::Philox& random);

/// A control video that lies beside its clip.
struct ControlFile {
  std::filesystem::path path{};
  VideoInfo info{};
};

/// Probes the `control` video at `path` of `clip`, which is used up to frame `frames` at `fps`
/// frames a second (0: every frame). Throws Error when it is not there or too short.
ControlFile open_control(const std::filesystem::path& path, const std::string& control,
                         const std::string& clip, double fps, int64_t frames);

}  // namespace cosmos::trainer
