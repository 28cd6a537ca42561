#include "tools/curate/near_duplicates.h"

#include <algorithm>

#include "tools/curate/features.h"
#include "tools/curate/filter.h"

namespace cosmos::curate {
namespace {

constexpr const char* kReason = "near duplicate";

bool similar_length(const Segment& a, const Segment& b) {
  const int64_t x = a.end_us - a.begin_us, y = b.end_us - b.begin_us;
  return std::min(x, y) * 10 >= std::max(x, y) * 9;
}

}  // namespace

void drop_near_duplicates(Store& store, int64_t bits) {
  if (bits < 0) return;
  std::vector<Segment> kept, dropped;
  for (const Source& source : store.sources("analysed"))
    for (Segment& clip : store.segments(source.id)) {
      if (!passed_filters(clip)) continue;
      const bool repeats = std::any_of(kept.begin(), kept.end(), [&](const Segment& earlier) {
        return similar_length(clip, earlier) &&
               hash_distance(clip.hashes, earlier.hashes) <= static_cast<double>(bits);
      });
      if (!repeats) {
        kept.push_back(std::move(clip));
      } else if (clip.state == State::kKept) {
        clip.state = State::kDropped;
        clip.reason = kReason;
        dropped.push_back(std::move(clip));
      }
    }
  store.decide_segments(dropped);
}

}  // namespace cosmos::curate
