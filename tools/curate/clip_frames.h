#pragma once

// Which frames of a clip are looked at by what does not need all.

#include <vector>

#include "tools/curate/video.h"

namespace cosmos::curate {

/// Seconds of the source: the middles of equal parts of the clip, `fps` of them a second; two at
/// least where it has two frames, `most` at most.
std::vector<double> frame_times(const Segment& clip, double fps, int64_t most);

}  // namespace cosmos::curate
