#include "tools/curate/text_overlay.h"

#include <algorithm>
#include <cmath>

#include "tools/curate/clip_frames.h"

namespace cosmos::curate {
namespace {

constexpr double kFps = 2;
constexpr int64_t kFrames = 16, kShorterSide = 270;
constexpr int64_t kWindowHeight = 12, kWindowWidth = 36;
constexpr double kEdge = 24;          // levels
constexpr double kDensity = 0.04;     // of a window, of each kind of edge
constexpr double kStillCamera = 0.5;  // of all edges

trainer::FrameSize search_size(const trainer::VideoInfo& info) {
  const double scale = std::min(1.0, static_cast<double>(kShorterSide) /
                                         static_cast<double>(std::min(info.height, info.width)));
  const auto scaled = [&](int64_t side) {
    return std::clamp<int64_t>(std::llround(static_cast<double>(side) * scale), 1, 4096);
  };
  return {
      .height = scaled(info.height), .width = scaled(info.width), .fit = trainer::Fit::kStretch};
}

/// Share of the window around each place. [H, W] of 0 and 1 -> [H, W]
Tensor density(const Tensor& edges) {
  const Tensor padded = torch::constant_pad_nd(
      edges.to(torch::kFloat32).unsqueeze(0),
      {kWindowWidth / 2, kWindowWidth / 2 - 1, kWindowHeight / 2, kWindowHeight / 2 - 1});
  return at::avg_pool2d(padded, {kWindowHeight, kWindowWidth}, /*stride=*/1).squeeze(0);
}

}  // namespace

std::optional<double> static_text(const Tensor& frames) {
  require(frames.dim() == 4 && frames.size(0) >= 2 && frames.size(3) == 3,
          "frames: expected [n, H, W, 3], n of 2 or more, got ", frames.sizes());
  if (frames.size(2) < 3) return 0.0;
  const Tensor luma = frames.to(torch::kFloat32).matmul(torch::tensor({0.299f, 0.587f, 0.114f}));
  const Tensor change = luma.slice(2, 2) - luma.slice(2, 0, -2);
  const Tensor rising = (change >= kEdge).all(0), falling = (change <= -kEdge).all(0);
  const double edges =
      (change.abs() >= kEdge).sum().item<double>() / static_cast<double>(frames.size(0));
  const double still = (rising.sum() + falling.sum()).item<double>();
  if (still > kStillCamera * edges) return std::nullopt;
  const Tensor text = (density(rising) >= kDensity).logical_and(density(falling) >= kDensity);
  return text.to(torch::kFloat64).mean().item<double>();
}

void TextOverlay::process(Video& video, Segment& clip) {
  if (video.info.times.empty()) video.info = trainer::probe_video(video.path);
  const std::vector<double> times = frame_times(clip, kFps, kFrames);
  clip.scores["text"] = nullptr;
  if (times.size() >= 2) {
    const auto text = static_text(
        trainer::read_frames_at(video.path, video.info, times, search_size(video.info)));
    if (text) clip.scores["text"] = *text;
    if (text && *text > max_text_) {
      clip.state = State::kDropped;
      clip.reason = "text";
    }
  }
  store_.update_segments(video.id, {clip});
}

}  // namespace cosmos::curate
