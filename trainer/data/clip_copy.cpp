#include "trainer/data/clip_copy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "modules/hub/atomic_file.h"
#include "trainer/data/decoder.h"
#include "trainer/data/memory_file.h"

namespace cosmos::trainer {

#ifdef COSMOS_VIDEO

using namespace libav;

namespace {

/// Where a part begins and ends, in ticks of the stream: [begin, end).
struct Span {
  int64_t begin = 0, end = 0;
  bool holds(int64_t pts) const { return pts >= begin && pts < end; }
};

Span span_of(const VideoInfo& info, double tick, int64_t first, int64_t frames) {
  const auto ticks = [&](int64_t frame) {
    return info.zero + std::llround(info.times[static_cast<std::size_t>(frame)] / tick);
  };
  const bool last = first + frames >= info.frames();
  return {ticks(first), last ? INT64_MAX : ticks(first + frames)};
}

// Moves to the keyframe that the part begins with; the packet read there, or nothing.
PacketPtr first_packet(Input& input, const Span& span, bool from_start) {
  PacketPtr packet = new_packet();
  if (!from_start &&
      av_seek_frame(input.format(), input.stream()->index, span.begin, AVSEEK_FLAG_BACKWARD) < 0)
    return nullptr;
  while (input.read(packet.get())) {
    if (!has_time(packet.get())) return nullptr;
    if (!span.holds(packet->pts)) continue;
    const bool starts = (packet->flags & AV_PKT_FLAG_KEY) && packet->pts == span.begin;
    return starts ? std::move(packet) : nullptr;
  }
  return nullptr;
}

/// The packets of the part, or none where they are not one run.
std::vector<PacketPtr> packets_of(Input& input, const Span& span, int64_t frames, bool from_start) {
  std::vector<PacketPtr> packets;
  PacketPtr packet = first_packet(input, span, from_start);
  while (packet && has_time(packet.get()) && span.holds(packet->pts)) {
    packets.push_back(std::move(packet));
    packet = new_packet();
    if (!input.read(packet.get())) break;
  }
  if (static_cast<int64_t>(packets.size()) != frames) packets.clear();
  return packets;
}

struct FreeOutput {
  void operator()(AVFormatContext* format) const { avformat_free_context(format); }
};

bool mux(const Input& input, std::vector<PacketPtr>& packets, const std::filesystem::path& out) {
  MemoryFile file;
  AVFormatContext* format = nullptr;
  const std::string name = out.filename().string();
  if (avformat_alloc_output_context2(&format, nullptr, nullptr, name.c_str()) < 0) return false;
  std::unique_ptr<AVFormatContext, FreeOutput> output(format);
  output->flags |= AVFMT_FLAG_BITEXACT;
  output->pb = file.io();
  AVStream* stream = avformat_new_stream(format, nullptr);
  if (!stream) throw std::bad_alloc();
  if (avcodec_parameters_copy(stream->codecpar, input.stream()->codecpar) < 0) return false;
  stream->codecpar->codec_tag = 0;
  stream->time_base = input.stream()->time_base;
  stream->avg_frame_rate = input.stream()->avg_frame_rate;
  if (avformat_write_header(format, nullptr) < 0) return false;
  const int64_t zero = packets.front()->pts;
  for (PacketPtr& packet : packets) {
    packet->pts -= zero;
    if (packet->dts != AV_NOPTS_VALUE) packet->dts -= zero;
    packet->stream_index = 0;
    packet->pos = -1;
    av_packet_rescale_ts(packet.get(), input.stream()->time_base, stream->time_base);
    if (av_interleaved_write_frame(format, packet.get()) < 0) return false;
  }
  if (av_write_trailer(format) < 0) return false;
  avio_flush(output->pb);
  modules::write_file(out, file.bytes());
  return true;
}

}  // namespace

bool copy_clip(const std::filesystem::path& path, const VideoInfo& info, int64_t first,
               int64_t frames, const std::filesystem::path& out, const MediaLimits& limits) {
  require(first >= 0 && frames > 0 && first + frames <= info.frames(), path.string(), ": frames ",
          first, " to ", first + frames - 1, " asked for, but the clip has ", info.frames());
  if (info.timing != Timing::kPackets) return false;
  // A turned picture needs its display matrix; coding it again stores it upright.
  Input input(path, limits);
  const Turn turn = turn_of(input.stream());
  if (turn.transpose || turn.mirror_x || turn.mirror_y) return false;
  const Span span = span_of(info, av_q2d(input.stream()->time_base), first, frames);
  std::vector<PacketPtr> packets = packets_of(input, span, frames, /*from_start=*/first == 0);
  return !packets.empty() && mux(input, packets, out);
}

#else

bool copy_clip(const std::filesystem::path& path, const VideoInfo&, int64_t, int64_t,
               const std::filesystem::path&, const MediaLimits&) {
  fail(path.string(), ": this build reads no video: built without FFmpeg");
}

#endif

}  // namespace cosmos::trainer
