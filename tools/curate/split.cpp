#include "tools/curate/split.h"

#include <algorithm>
#include <cmath>

#include "modules/transnet/shots.h"

namespace cosmos::curate {
namespace {

class Splitter {
 public:
  Splitter(Video& video, const SplitConfig& config) : video_(video), config_(config) {}

  /// Divides frames [first, end) into parts of at most `seconds`; the last is what is left.
  void divide(int64_t first, int64_t end, double seconds) {
    while (first < end) {
      const int64_t next = std::min(end, frame_at(first, seconds));
      crop(first, next);
      first = next;
    }
  }

  void leave_out(int64_t first, int64_t end, const std::string& reason) {
    add(first, end, State::kDropped, reason);
  }

 private:
  /// The first frame at `seconds` after frame `first` or later, at least first + 1.
  int64_t frame_at(int64_t first, double seconds) const {
    const auto& times = video_.info.times;
    // Rates such as 30000/1001 must not turn 10 s into a frame more or less by rounding.
    const double time = times[static_cast<std::size_t>(first)] + seconds - 1e-6;
    const auto at = std::lower_bound(times.begin(), times.end(), time) - times.begin();
    return std::max<int64_t>(at, first + 1);
  }

  void crop(int64_t first, int64_t end) {
    int64_t from = first, to = end;
    if (config_.crop_s > 0) {
      from = std::min(end, frame_at(first, config_.crop_s));
      const double stop = static_cast<double>(video_.microseconds(end)) / 1e6 - config_.crop_s;
      const auto& times = video_.info.times;
      to = std::lower_bound(times.begin(), times.end(), stop - 1e-6) - times.begin();
      if (from >= to) return add(first, end, State::kDropped, "too short");
    }
    add(first, from, State::kDropped, "crop");
    const double seconds =
        static_cast<double>(video_.microseconds(to) - video_.microseconds(from)) / 1e6;
    const bool shorter = seconds < config_.min_s - 1e-6;
    add(from, to, shorter ? State::kDropped : State::kKept, shorter ? "too short" : "");
    add(to, end, State::kDropped, "crop");
  }

  void add(int64_t first, int64_t end, State state, const std::string& reason) {
    if (first < end) video_.segments.push_back(video_.segment(first, end, state, reason));
  }

  Video& video_;
  const SplitConfig& config_;
};

/// Shots, and what lies between them.
void split_shots(const Video& video, const SplitConfig& config, Splitter& splitter) {
  std::vector<float> scores;
  for (const FrameFeatures& frame : video.frames) scores.push_back(frame.shot);
  int64_t at = 0;
  for (const auto& [first, end] : modules::shots_of(scores, split_threshold(config))) {
    splitter.leave_out(at, first, "transition");
    splitter.divide(first, end, config.max_s);
    at = end;
  }
  splitter.leave_out(at, static_cast<int64_t>(scores.size()), "transition");
}

}  // namespace

std::vector<int64_t> content_cuts(const std::vector<FrameFeatures>& frames, double threshold,
                                  int64_t min_scene_frames) {
  std::vector<int64_t> cuts{0};
  const int64_t count = static_cast<int64_t>(frames.size());
  for (int64_t n = min_scene_frames; n < count; ++n)
    if (frames[static_cast<std::size_t>(n)].content >= threshold &&
        n - cuts.back() >= min_scene_frames)
      cuts.push_back(n);
  return cuts;
}

std::vector<int64_t> adaptive_cuts(const std::vector<FrameFeatures>& frames, double threshold,
                                   double min_content, int64_t min_scene_frames) {
  constexpr int64_t kSide = 2;
  constexpr double kZero = 1e-5, kMostRatio = 255;
  std::vector<int64_t> cuts{0};
  const auto content = [&](int64_t n) {
    return static_cast<double>(frames[static_cast<std::size_t>(n)].content);
  };
  for (int64_t n = kSide; n + kSide < static_cast<int64_t>(frames.size()); ++n) {
    double mean = 0;
    for (int64_t k = 1; k <= kSide; ++k) mean += (content(n - k) + content(n + k)) / (2 * kSide);
    const double ratio = mean < kZero ? kMostRatio : std::min(content(n) / mean, kMostRatio);
    if (content(n) >= min_content && ratio >= threshold && n - cuts.back() >= min_scene_frames)
      cuts.push_back(n);
  }
  return cuts;
}

void split_video(Video& video, const SplitConfig& config) {
  const int64_t decoded = static_cast<int64_t>(video.frames.size());
  Splitter splitter(video, config);
  if (config.method == "stride") {
    splitter.divide(0, decoded, config.length_s);
  } else if (config.method == "transnetv2") {
    split_shots(video, config, splitter);
  } else {
    const double threshold = split_threshold(config);
    auto cuts =
        config.method == "adaptive"
            ? adaptive_cuts(video.frames, threshold, config.min_content, config.min_scene_frames)
            : content_cuts(video.frames, threshold, config.min_scene_frames);
    cuts.push_back(decoded);
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
      splitter.divide(cuts[i], cuts[i + 1], config.max_s);
  }
  if (decoded < video.info.frames())
    video.segments.push_back(
        video.segment(decoded, video.info.frames(), State::kFailed, "does not decode"));
}

}  // namespace cosmos::curate
