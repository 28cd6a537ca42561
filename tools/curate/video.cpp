#include "tools/curate/video.h"

#include <cmath>

#include "tools/curate/ids.h"

namespace cosmos::curate {

std::string state_name(State state) {
  return state == State::kKept ? "kept" : state == State::kDropped ? "dropped" : "failed";
}

State parse_state(const std::string& name) {
  for (const State state : {State::kKept, State::kDropped, State::kFailed})
    if (state_name(state) == name) return state;
  fail("\"", name, "\" is no state of a clip: the store is damaged");
}

int64_t Video::microseconds(int64_t n) const {
  const double seconds =
      n < info.frames() ? info.times[static_cast<std::size_t>(n)] : info.duration();
  return std::llround(seconds * 1e6);
}

Segment Video::segment(int64_t first, int64_t end, State state, std::string reason) const {
  Segment s{.first = first,
            .end = end,
            .begin_us = microseconds(first),
            .end_us = microseconds(end),
            .state = state,
            .reason = std::move(reason)};
  s.id = clip_id(sha256, s.begin_us, s.end_us);
  return s;
}

}  // namespace cosmos::curate
