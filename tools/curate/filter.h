#pragma once

// Which clips are worth keeping, by what was measured of their frames.

#include "tools/curate/config.h"
#include "tools/curate/video.h"

namespace cosmos::curate {

/// Fills the scores of every kept part and drops ("black", "frozen", "blurred", "still") those
/// beyond a limit; the first limit met names the reason. Codecs without motion vectors in their
/// stream (all but H.264 and MPEG-1/2/4) leave the motion scores null, and are not judged by them.
void filter_clips(Video& video, const FilterConfig& config);

/// Whether a clip was scored and kept then, whatever a later stage made of it.
bool passed_filters(const Segment& clip);

}  // namespace cosmos::curate
