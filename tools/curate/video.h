#pragma once

// What travels through the stages: one video, its measured frames, and the parts it is cut into.

#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "trainer/data/video_reader.h"

namespace cosmos::curate {

/// Where a second of input ends.
enum class State { kKept, kDropped, kFailed };

std::string state_name(State state);
State parse_state(const std::string& name);

/// Frames first .. end - 1 of a video. The parts of a video tile it: every microsecond of input is
/// in exactly one.
struct Segment {
  int64_t first = 0, end = 0;
  int64_t begin_us = 0, end_us = 0;
  State state = State::kKept;
  std::string reason{};  ///< of a part that is not kept
  std::string detail{};  ///< of a failure: the error's own words
  std::string id{};      ///< UUIDv5 of (content of the video, begin, end)
  Json scores = Json::object();
  std::vector<uint64_t> hashes{};  ///< perceptual, at fixed places of the clip
  std::string file{};              ///< below the output folder; empty: not written yet
  bool copied = false;             ///< packets as they were
};

/// What is measured of one frame (features.h says how).
struct FrameFeatures {
  float dark = 0;       ///< fraction of pixels nearer to black than a tenth of the range
  float change = 0;     ///< mean absolute change of luma from the frame before, of 255
  float content = 0;    ///< mean absolute change of hue, saturation and value
  float sharpness = 0;  ///< variance of the Laplacian of luma
  float shot = 0;       ///< TransNetV2: of belonging to a change of shots, 0 to 1
  uint64_t hash = 0;
  /// Mean vector length over (H + W): of the picture, and by part of 256 x 256 pixels. No parts
  /// where the frame has no vectors.
  float motion = 0;
  std::vector<float> patch_motion{};
};

struct Video {
  int64_t id = 0;  ///< in the store: order of listing
  std::filesystem::path path{};
  std::string sha256{};
  trainer::VideoInfo info{};
  std::vector<FrameFeatures> frames{};  ///< those that decode
  std::string damage{};                 ///< why the others do not
  std::vector<Segment> segments{};

  /// Presentation of frame `n` in microseconds; the end of the clip for n = frames().
  int64_t microseconds(int64_t n) const;
  Segment segment(int64_t first, int64_t end, State state, std::string reason = "") const;
};

}  // namespace cosmos::curate
