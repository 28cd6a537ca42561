#pragma once

// How well a generated clip follows the edges and the blur of another: the figures of the Cosmos
// Transfer report. Clips: RGB [T, 3, H, W] in [0, 1]; results [T] in float64. The signals are those
// that control the generation (modules/transfer/signals.h), computed from both clips alike.

#include "modules/transfer/signals.h"

namespace cosmos::modules {

/// F1 of the Canny edges of `a`, judged by those of `b`; 1 where neither frame has any.
Tensor canny_f1(const Tensor& a, const Tensor& b,
                const EdgeThresholds& thresholds = edge_thresholds(Strength::kMedium));

/// SSIM of both clips blurred.
Tensor blur_ssim(const Tensor& a, const Tensor& b,
                 const BlurOptions& options = blur_options(Strength::kMedium));

}  // namespace cosmos::modules
