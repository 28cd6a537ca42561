#include "tools/curate/clip_frames.h"

#include <algorithm>
#include <cmath>

namespace cosmos::curate {

std::vector<double> frame_times(const Segment& clip, double fps, int64_t most) {
  const double begin = static_cast<double>(clip.begin_us) / 1e6;
  const double length = static_cast<double>(clip.end_us - clip.begin_us) / 1e6;
  const auto count = std::clamp<int64_t>(std::llround(length * fps),
                                         std::min<int64_t>(2, clip.end - clip.first), most);
  std::vector<double> times;
  for (int64_t i = 0; i < count; ++i)
    times.push_back(begin + length * (static_cast<double>(i) + 0.5) / static_cast<double>(count));
  return times;
}

}  // namespace cosmos::curate
