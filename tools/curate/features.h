#pragma once

// What is measured of every frame, in one decoding pass.

#include "tools/curate/video.h"
#include "trainer/data/frame_scan.h"

namespace cosmos::curate {

/// Frame by frame: each is compared with the one before.
class FeatureMeter {
 public:
  FeatureMeter(int64_t height, int64_t width) : height_(height), width_(width) {}

  /// image: uint8 RGB [H, W, 3] of analysis size.
  ///   content    mean over hue (0 to 179), saturation and value (0 to 255) of the mean absolute
  ///              change: OpenCV's 8-bit HSV and PySceneDetect's content score
  ///   hash       signs of the 8 x 8 lowest DCT coefficients of 32 x 32 luma around their median
  FrameFeatures measure(const trainer::ScannedFrame& frame);

 private:
  void measure_motion(const trainer::ScannedFrame& frame, FrameFeatures& features) const;

  int64_t height_, width_;  ///< of the video, for motion
  std::vector<uint8_t> hsv_, luma_, last_hsv_, last_luma_;
};

/// At most 256 pixels wide, the shape kept.
trainer::FrameSize analysis_size(const trainer::VideoInfo& info);

/// Mean bits by which the hashes of two clips differ.
double hash_distance(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b);

}  // namespace cosmos::curate
