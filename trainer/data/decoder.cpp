#ifdef COSMOS_VIDEO

#include "trainer/data/decoder.h"

#include <algorithm>

namespace cosmos::trainer::libav {

/// Time in ticks of the frame that is `number`-th out of the decoder.
int64_t frame_ticks(const AVFrame* frame, const AVStream* stream, int64_t number, Timing timing) {
  if (timing != Timing::kCount) return frame->best_effort_timestamp;
  const AVRational rate =
      stream->avg_frame_rate.num > 0 ? stream->avg_frame_rate : AVRational{25, 1};
  return av_rescale_q(number, av_inv_q(rate), stream->time_base);
}

Decoder::Decoder(Input& input, const MediaLimits& limits, bool motion_vectors)
    : input_(input),
      limits_(limits),
      codec_(input.decoder(motion_vectors)),
      packet_(new_packet()) {}

bool Decoder::next(AVFrame* frame, int64_t needed_from) {
  for (;;) {
    av_frame_unref(frame);
    int error = avcodec_receive_frame(codec_.get(), frame);
    if (error >= 0) return true;
    if (error == AVERROR_EOF || draining_) return false;
    require(error == AVERROR(EAGAIN), "a frame does not decode: ", reason(error));
    if (pushed_back_) {
      pushed_back_ = false;
    } else if (!input_.read(packet_.get())) {
      draining_ = true;
      avcodec_send_packet(codec_.get(), nullptr);
      continue;
    }
    require(++packets_ <= limits_.max_frames, "more than ", limits_.max_frames, " packets");
    forget_message();
    error = avcodec_send_packet(codec_.get(), packet_.get());
    const bool needed = !has_time(packet_.get()) || packet_->pts >= needed_from;
    require(error >= 0 || error == AVERROR(EAGAIN) || !needed, "the frame at ",
            seconds(packet_->pts), " s does not decode: ", reason(error));
  }
}

bool Decoder::seek(int64_t target) {
  const double tick = av_q2d(input_.stream()->time_base);
  const int64_t start = input_.stream()->start_time;
  for (const double margin : {0.0, 1.0, 5.0, 20.0, 80.0}) {
    int64_t wanted = target - static_cast<int64_t>(margin / tick);
    if (start != AV_NOPTS_VALUE) wanted = std::max(wanted, start);
    if (av_seek_frame(input_.format(), input_.stream()->index, wanted, AVSEEK_FLAG_BACKWARD) < 0)
      return false;
    if (!input_.read(packet_.get())) return false;
    if ((packet_->flags & AV_PKT_FLAG_KEY) && has_time(packet_.get()) && packet_->pts <= target) {
      pushed_back_ = true;
      return true;
    }
    if (start != AV_NOPTS_VALUE && wanted == start) return false;
  }
  return false;
}

double Decoder::seconds(int64_t pts) const {
  return pts == AV_NOPTS_VALUE ? -1 : pts * av_q2d(input_.stream()->time_base);
}

}  // namespace cosmos::trainer::libav

#endif  // COSMOS_VIDEO
