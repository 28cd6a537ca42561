#pragma once

// One pass over a clip: every frame decoded once, handed out in each size that is wanted.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "trainer/data/video_reader.h"

namespace cosmos::trainer {

struct ScanOptions {
  std::vector<FrameSize> sizes;
  bool motion_vectors = false;
  int64_t first = 0;   ///< frame to start at
  int64_t frames = 0;  ///< 0: to the end
  MediaLimits limits{};
};

/// A block that the codec moved: its centre and its displacement from the reference, in pixels of
/// the stored picture.
struct MotionVector {
  float x = 0, y = 0, width = 0, height = 0, dx = 0, dy = 0;
};

struct ScannedFrame {
  int64_t index = 0;             ///< place in VideoInfo::times
  std::vector<Tensor> images{};  ///< uint8 [H, W, 3], one a size
  bool predicted = false;        ///< not an intra picture: it may have vectors
  std::vector<MotionVector> motion{};
};

struct ScanEnd {
  int64_t frames = 0;     ///< handed out
  std::string failure{};  ///< why the rest does not decode; empty: every wanted frame came
};

/// Calls `take` with the frames first, first + 1, ... in order; each index once. Damage ends the
/// scan and is returned, what came before stays valid. A frame or two that a decoder left out are
/// handed out as copies of the one before. Throws Error when the file does not open.
ScanEnd scan_frames(const std::filesystem::path& path, const VideoInfo& info,
                    const ScanOptions& options,
                    const std::function<void(const ScannedFrame&)>& take);

}  // namespace cosmos::trainer
