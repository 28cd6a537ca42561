#pragma once

// Decoding forward, for the reader and the scan. Private to trainer/data, as libav.h is.

#ifdef COSMOS_VIDEO

#include "trainer/data/libav.h"

namespace cosmos::trainer::libav {

inline bool has_time(const AVPacket* packet) {
  return packet->pts != AV_NOPTS_VALUE;
}

/// Time in ticks of the frame that is `number`-th out of the decoder.
int64_t frame_ticks(const AVFrame* frame, const AVStream* stream, int64_t number, Timing timing);

/// Decodes forward from wherever the input stands.
class Decoder {
 public:
  /// `motion_vectors`: frames bring AV_FRAME_DATA_MOTION_VECTORS, where the codec has them.
  Decoder(Input& input, const MediaLimits& limits, bool motion_vectors = false);

  /// Next frame in order of presentation; false at the end. A packet that does not decode throws,
  /// unless its time lies before `needed_from` (after a seek, pictures may lack their references).
  bool next(AVFrame* frame, int64_t needed_from);

  /// Moves to a keyframe at or before `target` (stream time base), or to the beginning of the file;
  /// false when the file must be opened again for that.
  bool seek(int64_t target);

 private:
  double seconds(int64_t pts) const;

  Input& input_;
  MediaLimits limits_;
  CodecPtr codec_;
  PacketPtr packet_;
  bool pushed_back_ = false, draining_ = false;
  int64_t packets_ = 0;
};

}  // namespace cosmos::trainer::libav

#endif  // COSMOS_VIDEO
