#pragma once

// Control signals that follow from the RGB clip itself: edges and blur, with the published presets.
// Depth and segmentation come from networks of others, as videos.
//
// Frames are uint8 RGB [T, H, W, 3]; each frame's signal depends on that frame alone.

#include <string>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// very_low, low, medium, high, very_high: how much of the clip's detail the signal leaves out.
enum class Strength { kVeryLow, kLow, kMedium, kHigh, kVeryHigh };
/// Throws Error on another name.
Strength strength_from(const std::string& name, const std::string& where);

/// Hysteresis of the edges: above `high` starts one, above `low` continues it.
struct EdgeThresholds {
  int64_t low = 100, high = 200;
};
/// 20/50, 50/100, 100/200, 200/300, 300/400.
EdgeThresholds edge_thresholds(Strength strength);

/// Canny edges, 0 or 255, the same on three channels: [T, H, W, 3].
///
/// Gradients by 3x3 Sobel with repeated borders, of the channel where |dx| + |dy| is largest; a
/// pixel is kept where that is above `low` and a maximum along the gradient (four directions, told
/// apart at 22.5 degrees); kept pixels connected (8 neighbours) to one above `high` are edges. The
/// same pixels as OpenCV's Canny(image, low, high).
Tensor canny_edges(const Tensor& frames, const EdgeThresholds& thresholds);

struct BlurOptions {
  int64_t shrink = 2;     ///< frames are made smaller by this before the filter
  bool bilateral = true;  ///< else Gaussian, 25 pixels wide, deviation 12.5
  int64_t resample = 10;  ///< after it, bicubic to 1/resample and back
};
/// shrink 1, 4, 2, 1, 4 and resample 4, 4, 10, 16, 16, with the bilateral filter.
BlurOptions blur_options(Strength strength);

/// "vis": [T, H, W, 3]. The bilateral filter has diameter 30 and deviations 150 in colour (sum of
/// the channels' differences) and 100 in pixels.
Tensor blur(const Tensor& frames, const BlurOptions& options);

}  // namespace cosmos::modules
