#include "tools/curate/filter.h"

#include <algorithm>

namespace cosmos::curate {
namespace {

constexpr float kBlackFrame = 0.98f;  // of its pixels dark
constexpr float kSameFrame = 0.255f;  // levels of change: a thousandth of the range
constexpr int kHashes = 3;

// Mean motion over the frames that have vectors: of the picture, and of its stillest part.
void score_motion(const Video& video, Segment& clip) {
  std::vector<double> parts;
  double sum = 0;
  int64_t frames = 0;
  for (int64_t n = clip.first; n < clip.end; ++n) {
    const FrameFeatures& frame = video.frames[static_cast<std::size_t>(n)];
    if (frame.patch_motion.empty()) continue;
    parts.resize(frame.patch_motion.size());
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i] += frame.patch_motion[i];
    sum += frame.motion;
    ++frames;
  }
  clip.scores["motion"] = nullptr;
  clip.scores["patch_motion"] = nullptr;
  if (frames == 0) return;
  const auto count = static_cast<double>(frames);
  clip.scores["motion"] = sum / count;
  clip.scores["patch_motion"] = *std::min_element(parts.begin(), parts.end()) / count;
}

void score(const Video& video, Segment& clip) {
  const int64_t count = clip.end - clip.first;
  int64_t black = 0, frozen = 0;
  double sharpness = 0;
  for (int64_t n = clip.first; n < clip.end; ++n) {
    const FrameFeatures& frame = video.frames[static_cast<std::size_t>(n)];
    black += frame.dark >= kBlackFrame;
    frozen += n > clip.first && frame.change < kSameFrame;
    sharpness += frame.sharpness;
  }
  clip.scores["black"] = static_cast<double>(black) / static_cast<double>(count);
  clip.scores["frozen"] =
      count > 1 ? static_cast<double>(frozen) / static_cast<double>(count - 1) : 0.0;
  clip.scores["sharpness"] = sharpness / static_cast<double>(count);
  score_motion(video, clip);
  for (int64_t k = 1; k <= kHashes; ++k)
    clip.hashes.push_back(
        video.frames[static_cast<std::size_t>(clip.first + k * count / (kHashes + 1))].hash);
}

std::string fault(const Json& scores, const FilterConfig& limits) {
  if (scores["black"] > limits.max_black) return "black";
  if (scores["frozen"] > limits.max_frozen) return "frozen";
  if (scores["sharpness"] < limits.min_sharpness) return "blurred";
  if (!scores["motion"].is_null() &&
      (scores["motion"] < limits.min_motion || scores["patch_motion"] < limits.min_patch_motion))
    return "still";
  return "";
}

}  // namespace

void filter_clips(Video& video, const FilterConfig& config) {
  for (Segment& clip : video.segments) {
    if (clip.state != State::kKept) continue;
    score(video, clip);
    clip.reason = fault(clip.scores, config);
    if (!clip.reason.empty()) clip.state = State::kDropped;
  }
}

bool passed_filters(const Segment& clip) {
  constexpr const char* kReasons[] = {"black", "frozen", "blurred", "still"};
  return !clip.hashes.empty() &&
         std::find(std::begin(kReasons), std::end(kReasons), clip.reason) == std::end(kReasons);
}

}  // namespace cosmos::curate
