#include "trainer/data/video_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "trainer/data/decoder.h"
#include "trainer/data/libav.h"

namespace cosmos::trainer {

namespace {

// Errors from below say what; this says where, once.
template <typename Function>
auto naming(const std::filesystem::path& path, Function&& function) {
  try {
    return function();
  } catch (const Error& error) {
    const std::string what = error.what(), name = path.string();
    if (what.rfind(name + ":", 0) == 0) throw;
    fail(name, ": ", what);
  }
}

}  // namespace

Tensor channels_first(const Tensor& frames) {
  return frames.permute({3, 0, 1, 2}).contiguous();
}
Tensor channels_last(const Tensor& video) {
  return video.permute({1, 2, 3, 0}).contiguous();
}

std::vector<double> timeline(const VideoInfo& info, double fps, const MediaLimits& limits) {
  if (fps == 0) return info.times;
  require(fps > 0 && fps <= 1000, "fps: expected a rate in (0, 1000], got ", fps);
  if (info.times.empty()) return {};
  // Nearest-frame sampling is meaningful up to half an output frame past the last one.
  const double count = std::floor(info.times.back() * fps + 0.5 + 1e-9) + 1;
  require(count <= static_cast<double>(limits.max_frames), "a clip of ", info.times.back(),
          " s has ", count, " frames at ", fps, " fps: more than the limit of ", limits.max_frames);
  std::vector<double> times(static_cast<std::size_t>(count));
  for (std::size_t k = 0; k < times.size(); ++k) times[k] = static_cast<double>(k) / fps;
  return times;
}

#ifdef COSMOS_VIDEO

using namespace libav;

namespace {

// VP8's alternate reference frames travel in packets of their own and are never shown.
bool is_shown(const AVPacket* packet, AVCodecID codec) {
  if (packet->flags & AV_PKT_FLAG_DISCARD) return false;
  return codec != AV_CODEC_ID_VP8 || packet->size == 0 || (packet->data[0] & 0x10);
}

/// Presentation times in ticks, ascending, and where they came from.
struct Ticks {
  std::vector<int64_t> ticks;
  Timing timing = Timing::kPackets;
};

Ticks scan_packets(Input& input, const MediaLimits& limits) {
  Ticks result;
  PacketPtr packet = new_packet();
  const AVCodecID codec = input.stream()->codecpar->codec_id;
  while (input.read(packet.get())) {
    if (!is_shown(packet.get(), codec)) continue;
    if (!has_time(packet.get())) {
      result.timing = Timing::kFrames;
      return result;
    }
    result.ticks.push_back(packet->pts);
    require(static_cast<int64_t>(result.ticks.size()) <= limits.max_frames, "more than ",
            limits.max_frames, " frames");
  }
  std::sort(result.ticks.begin(), result.ticks.end());
  return result;
}

Ticks scan_frames(Input& input, const MediaLimits& limits) {
  Ticks result{.ticks = {}, .timing = Timing::kFrames};
  Ticks counted{.ticks = {}, .timing = Timing::kCount};
  Decoder decoder(input, limits);
  FramePtr frame = new_frame();
  for (int64_t n = 0; decoder.next(frame.get(), std::numeric_limits<int64_t>::min()); ++n) {
    result.ticks.push_back(frame_ticks(frame.get(), input.stream(), n, result.timing));
    counted.ticks.push_back(frame_ticks(frame.get(), input.stream(), n, counted.timing));
  }
  // Containers without presentation times (AVI) make the decoder guess; a guess must ascend.
  const auto not_after = [](int64_t a, int64_t b) { return b == AV_NOPTS_VALUE || a >= b; };
  const auto& t = result.ticks;
  const bool guessed = std::adjacent_find(t.begin(), t.end(), not_after) == t.end() &&
                       (t.empty() || t.front() != AV_NOPTS_VALUE);
  return guessed ? result : counted;
}

double frame_rate(const AVStream* stream, const std::vector<double>& times) {
  const AVRational stated = stream->avg_frame_rate;
  const double header = stated.num > 0 && stated.den > 0 ? av_q2d(stated) : 0;
  if (times.size() < 2 || times.back() <= 0) return header > 0 && header <= 1000 ? header : 25;
  const double measured = static_cast<double>(times.size() - 1) / times.back();
  // The header's fraction is exact where it is true; times may be rounded to milliseconds.
  return std::abs(header - measured) < 0.005 * measured ? header : measured;
}

VideoInfo scan_clip(const std::filesystem::path& path, const MediaLimits& limits) {
  auto input = std::make_unique<Input>(path, limits);
  Ticks scan = scan_packets(*input, limits);
  if (scan.timing != Timing::kPackets) {
    input = std::make_unique<Input>(path, limits);
    scan = scan_frames(*input, limits);
  }
  require(!scan.ticks.empty(), "the video stream holds no frames");
  const AVStream* stream = input->stream();
  const AVCodecParameters* coded = stream->codecpar;
  const Turn turn = turn_of(stream);
  const AVRational aspect = coded->sample_aspect_ratio;
  VideoInfo info;
  info.zero = scan.ticks.front();
  info.height = turn.transpose ? coded->width : coded->height;
  info.width = turn.transpose ? coded->height : coded->width;
  if (aspect.num > 0 && aspect.den > 0) info.pixel_aspect = av_q2d(aspect);
  if (info.pixel_aspect < 0.1 || info.pixel_aspect > 10) info.pixel_aspect = 1;
  if (turn.transpose) info.pixel_aspect = 1 / info.pixel_aspect;
  info.codec = avcodec_get_name(coded->codec_id);
  info.container = input->format()->iformat->name;
  info.timing = scan.timing;
  const double tick = av_q2d(stream->time_base);
  info.times.reserve(scan.ticks.size());
  for (const int64_t t : scan.ticks)
    info.times.push_back((static_cast<double>(t) - static_cast<double>(info.zero)) * tick);
  info.fps = frame_rate(stream, info.times);
  return info;
}

/// Distance from `time` to the nearest frame of the clip.
double nearest_distance(const std::vector<double>& times, double time) {
  const auto after = std::lower_bound(times.begin(), times.end(), time);
  double best = std::numeric_limits<double>::infinity();
  if (after != times.end()) best = *after - time;
  if (after != times.begin()) best = std::min(best, time - *(after - 1));
  return best;
}

/// Collects the frames nearest to ascending times into one tensor.
class Collector {
 public:
  Collector(const VideoInfo& info, const std::vector<double>& times, ToRgb to_rgb,
            const MediaLimits& limits)
      : info_(info), times_(times), to_rgb_(std::move(to_rgb)), limits_(limits) {}

  bool complete() const { return next_ == times_.size(); }
  int64_t collected() const { return static_cast<int64_t>(next_); }

  /// `frame` follows everything shown before; it is moved from.
  void show(FramePtr& frame, double time) {
    while (!complete() && times_[next_] <= time) {
      const double target = times_[next_];
      const bool earlier = previous_ && target - previous_time_ <= time - target;
      take(earlier ? previous_.get() : frame.get(), earlier ? previous_time_ : time);
    }
    previous_.swap(frame);
    previous_time_ = time;
    if (!frame) frame = new_frame();
  }
  /// After the last frame.
  void finish() {
    while (!complete() && previous_) take(previous_.get(), previous_time_);
  }
  Tensor result() { return out_; }

 private:
  void take(const AVFrame* frame, double time) {
    // Frames that the decoder silently left out must not be papered over with their neighbours.
    const double slack = 2.5 / info_.fps + nearest_distance(info_.times, times_[next_]);
    require(std::abs(time - times_[next_]) <= slack, "the frame at ", times_[next_],
            " s does not decode (nearest decoded: ", time, " s)");
    const bool damaged = (frame->flags & AV_FRAME_FLAG_CORRUPT) || frame->decode_error_flags;
    require(!damaged, "the frame at ", time, " s is damaged");
    if (next_ == 0 || time != taken_time_) image_ = to_rgb_(frame);
    taken_time_ = time;
    if (next_ == 0) {
      const int64_t count = static_cast<int64_t>(times_.size());
      require(count <= limits_.max_bytes / image_.numel(), count, " frames of ", image_.size(0),
              " x ", image_.size(1), " pixels are more than the limit of ", limits_.max_bytes,
              " bytes");
      out_ = torch::empty({count, image_.size(0), image_.size(1), 3}, torch::kUInt8);
    }
    require(image_.size(0) == out_.size(1) && image_.size(1) == out_.size(2),
            "the picture size changes at ", time, " s to ", image_.size(0), " x ", image_.size(1),
            " (state a height and width to scale to)");
    out_[static_cast<int64_t>(next_)].copy_(image_);
    ++next_;
  }

  const VideoInfo& info_;
  const std::vector<double>& times_;
  ToRgb to_rgb_;
  MediaLimits limits_;
  std::size_t next_ = 0;
  FramePtr previous_;
  double previous_time_ = 0, taken_time_ = 0;
  Tensor image_, out_;
};

Tensor collect(const std::filesystem::path& path, const VideoInfo& info,
               const std::vector<double>& times, const FrameSize& size, const MediaLimits& limits) {
  auto input = std::make_unique<Input>(path, limits);
  const double tick = av_q2d(input->stream()->time_base);
  const int64_t zero = info.zero;
  const int64_t target = zero + static_cast<int64_t>(std::floor(times.front() / tick + 0.5));
  auto decoder = std::make_unique<Decoder>(*input, limits);
  if (info.timing == Timing::kPackets && times.front() > 0 && !decoder->seek(target)) {
    input = std::make_unique<Input>(path, limits);
    decoder = std::make_unique<Decoder>(*input, limits);
  }
  const Turn turn = turn_of(input->stream());
  Collector collector(info, times, ToRgb(size, turn, info.pixel_aspect, limits), limits);
  FramePtr frame = new_frame();
  for (int64_t number = 0; !collector.complete() && decoder->next(frame.get(), target); ++number) {
    const int64_t ticks = frame_ticks(frame.get(), input->stream(), number, info.timing);
    if (ticks == AV_NOPTS_VALUE) continue;  // a damaged packet's: take() misses it where it matters
    collector.show(frame, (static_cast<double>(ticks) - static_cast<double>(zero)) * tick);
  }
  collector.finish();
  require(collector.complete(), "no frame decodes after ", times.front(), " s");
  return collector.result();
}

}  // namespace

bool media_available() {
  return true;
}

VideoInfo probe_video(const std::filesystem::path& path, const MediaLimits& limits) {
  return naming(path, [&] { return scan_clip(path, limits); });
}

Tensor read_frames_at(const std::filesystem::path& path, const VideoInfo& info,
                      const std::vector<double>& times, const FrameSize& size,
                      const MediaLimits& limits) {
  return naming(path, [&] {
    require(!times.empty(), "no times given");
    require(std::is_sorted(times.begin(), times.end()) && times.front() >= 0,
            "times must ascend from 0");
    return collect(path, info, times, size, limits);
  });
}

Tensor read_image(const std::filesystem::path& path, const FrameSize& size,
                  const MediaLimits& limits) {
  return naming(path, [&] {
    Input input(path, limits);
    Decoder decoder(input, limits);
    FramePtr frame = new_frame();
    require(decoder.next(frame.get(), std::numeric_limits<int64_t>::min()),
            "the picture does not decode");
    // Density fields of picture files are about print, not about the shape of a pixel.
    return ToRgb(size, turn_of(frame.get()), /*pixel_aspect=*/1, limits)(frame.get());
  });
}

#else

namespace {
[[noreturn]] void no_media(const std::filesystem::path& path) {
  fail(path.string(),
       ": this build reads no video or pictures: built without FFmpeg (install "
       "libavformat-dev libavcodec-dev libswscale-dev and build again, or give precomputed "
       "latents)");
}
}  // namespace

bool media_available() {
  return false;
}
VideoInfo probe_video(const std::filesystem::path& path, const MediaLimits&) {
  no_media(path);
}
Tensor read_frames_at(const std::filesystem::path& path, const VideoInfo&,
                      const std::vector<double>&, const FrameSize&, const MediaLimits&) {
  no_media(path);
}
Tensor read_image(const std::filesystem::path& path, const FrameSize&, const MediaLimits&) {
  no_media(path);
}

#endif

Tensor read_video(const std::filesystem::path& path, const VideoInfo& info, const Window& window,
                  const MediaLimits& limits) {
  std::vector<double> times = naming(path, [&] { return timeline(info, window.fps, limits); });
  const int64_t total = static_cast<int64_t>(times.size());
  const int64_t count = window.frames > 0 ? window.frames : total - window.first;
  require(window.first >= 0 && count > 0 && window.first <= total - count, path.string(),
          ": frames ", window.first, " to ", window.first + std::max<int64_t>(count, 1) - 1,
          " asked for, but the clip has ", total, " frames",
          window.fps > 0 ? " at the wanted rate" : "", " (", info.duration(), " s)");
  times.erase(times.begin() + window.first + count, times.end());
  times.erase(times.begin(), times.begin() + window.first);
  return read_frames_at(path, info, times, window.size, limits);
}

Tensor read_video(const std::filesystem::path& path, const Window& window,
                  const MediaLimits& limits) {
  return read_video(path, probe_video(path, limits), window, limits);
}

}  // namespace cosmos::trainer
