#include "modules/metrics/control.h"

#include "modules/metrics/frames.h"

namespace cosmos::modules {
namespace {

// [T, 3, H, W] in [0, 1] -> uint8 [T, H, W, 3]
Tensor as_bytes(const Tensor& clip) {
  return (clip * 255).round().clamp(0, 255).to(torch::kUInt8).permute({0, 2, 3, 1}).contiguous();
}

}  // namespace

Tensor canny_f1(const Tensor& a, const Tensor& b, const EdgeThresholds& thresholds) {
  const auto edges = [&](const Tensor& clip) {
    return canny_edges(as_bytes(clip), thresholds).select(3, 0);
  };
  return f1_score(edges(a), edges(b));
}

Tensor blur_ssim(const Tensor& a, const Tensor& b, const BlurOptions& options) {
  const auto blurred = [&](const Tensor& clip) {
    return blur(as_bytes(clip), options).permute({0, 3, 1, 2}).to(torch::kFloat64) / 255;
  };
  return ssim(blurred(a), blurred(b));
}

}  // namespace cosmos::modules
