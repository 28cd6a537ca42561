#pragma once

// A part of a clip into a file of its own without coding it again.

#include <filesystem>

#include "trainer/data/video_reader.h"

namespace cosmos::trainer {

/// Copies the packets of frames first .. first + frames - 1 into `out` (the container follows from
/// its ending). Possible only where that is exact: the part begins with a keyframe, and its packets
/// are one run in the order of decoding, so that no frame outside is needed and none comes along.
/// Returns false, and writes nothing, where it is not, or where the container does not take the
/// codec. `out` appears when complete.
bool copy_clip(const std::filesystem::path& path, const VideoInfo& info, int64_t first,
               int64_t frames, const std::filesystem::path& out, const MediaLimits& limits = {});

}  // namespace cosmos::trainer
