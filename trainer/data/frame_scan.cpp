#include "trainer/data/frame_scan.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "trainer/data/decoder.h"

#ifdef COSMOS_VIDEO
extern "C" {
#include <libavutil/motion_vector.h>
}
#endif

namespace cosmos::trainer {

#ifdef COSMOS_VIDEO

using namespace libav;

namespace {

std::vector<MotionVector> vectors_of(const AVFrame* frame) {
  std::vector<MotionVector> vectors;
  const AVFrameSideData* data = av_frame_get_side_data(frame, AV_FRAME_DATA_MOTION_VECTORS);
  if (!data) return vectors;
  const auto* raw = reinterpret_cast<const AVMotionVector*>(data->data);
  const std::size_t count = data->size / sizeof(AVMotionVector);
  vectors.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const float scale = raw[i].motion_scale ? static_cast<float>(raw[i].motion_scale) : 1.0f;
    vectors.push_back({.x = static_cast<float>(raw[i].dst_x),
                       .y = static_cast<float>(raw[i].dst_y),
                       .width = static_cast<float>(raw[i].w),
                       .height = static_cast<float>(raw[i].h),
                       .dx = static_cast<float>(raw[i].motion_x) / scale,
                       .dy = static_cast<float>(raw[i].motion_y) / scale});
  }
  return vectors;
}

int64_t nearest_index(const std::vector<double>& times, double time) {
  const auto after = std::lower_bound(times.begin(), times.end(), time);
  if (after == times.begin()) return 0;
  const bool earlier = after == times.end() || time - *(after - 1) <= *after - time;
  return (after - times.begin()) - (earlier ? 1 : 0);
}

class Scan {
 public:
  Scan(const VideoInfo& info, const ScanOptions& options, Turn turn,
       const std::function<void(const ScannedFrame&)>& take)
      : info_(info), options_(options), take_(take), next_(options.first) {
    for (const FrameSize& size : options.sizes)
      to_rgb_.emplace_back(size, turn, info.pixel_aspect, options.limits);
    end_ = options.frames > 0 ? options.first + options.frames : info.frames();
  }

  bool complete() const { return next_ >= end_; }
  int64_t taken() const { return next_ - options_.first; }

  void show(const AVFrame* frame, double time) {
    const int64_t index = nearest_index(info_.times, time);
    if (index < next_) return;  // before the wanted part, or two frames at one time
    require(index - next_ <= kMostLeftOut, "the frame at ",
            info_.times[static_cast<std::size_t>(next_)], " s does not decode");
    const bool damaged = (frame->flags & AV_FRAME_FLAG_CORRUPT) || frame->decode_error_flags;
    require(!damaged, "the frame at ", time, " s is damaged");
    ScannedFrame scanned;
    for (ToRgb& convert : to_rgb_) scanned.images.push_back(convert(frame));
    scanned.predicted = frame->pict_type != AV_PICTURE_TYPE_I;
    if (options_.motion_vectors) scanned.motion = vectors_of(frame);
    last_ = scanned;
    for (; next_ <= index && !complete(); ++next_) {
      scanned.index = next_;
      take_(scanned);
    }
  }

  /// After the last frame.
  void finish() {
    if (complete()) return;
    require(end_ - next_ <= kMostLeftOut && !last_.images.empty(), "the frame at ",
            info_.times[static_cast<std::size_t>(next_)], " s does not decode");
    for (; !complete(); ++next_) {
      last_.index = next_;
      take_(last_);
    }
  }

 private:
  static constexpr int64_t kMostLeftOut = 2;

  const VideoInfo& info_;
  const ScanOptions& options_;
  const std::function<void(const ScannedFrame&)>& take_;
  std::vector<ToRgb> to_rgb_;
  int64_t next_, end_ = 0;
  ScannedFrame last_;
};

}  // namespace

ScanEnd scan_frames(const std::filesystem::path& path, const VideoInfo& info,
                    const ScanOptions& options,
                    const std::function<void(const ScannedFrame&)>& take) {
  require(options.first >= 0 && options.frames >= 0 &&
              options.first + options.frames <= info.frames() && options.first < info.frames(),
          path.string(), ": frames from ", options.first, " asked for, but the clip has ",
          info.frames());
  auto input = std::make_unique<Input>(path, options.limits);
  const double tick = av_q2d(input->stream()->time_base);
  const double start = info.times[static_cast<std::size_t>(options.first)];
  const int64_t target = info.zero + std::llround(start / tick);
  auto decoder = std::make_unique<Decoder>(*input, options.limits, options.motion_vectors);
  if (info.timing == Timing::kPackets && options.first > 0 && !decoder->seek(target)) {
    input = std::make_unique<Input>(path, options.limits);
    decoder = std::make_unique<Decoder>(*input, options.limits, options.motion_vectors);
  }
  Scan scan(info, options, turn_of(input->stream()), take);
  FramePtr frame = new_frame();
  try {
    for (int64_t n = 0; !scan.complete() && decoder->next(frame.get(), target); ++n) {
      const int64_t ticks = frame_ticks(frame.get(), input->stream(), n, info.timing);
      if (ticks == AV_NOPTS_VALUE) continue;  // a damaged packet's: the next index misses it
      scan.show(frame.get(), static_cast<double>(ticks - info.zero) * tick);
    }
    scan.finish();
  } catch (const Error& error) {
    return {.frames = scan.taken(), .failure = error.what()};
  }
  return {.frames = scan.taken(), .failure = ""};
}

#else

ScanEnd scan_frames(const std::filesystem::path& path, const VideoInfo&, const ScanOptions&,
                    const std::function<void(const ScannedFrame&)>&) {
  fail(path.string(), ": this build reads no video: built without FFmpeg");
}

#endif

}  // namespace cosmos::trainer
