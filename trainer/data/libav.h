#pragma once

// What the reader and the writer share of FFmpeg's libav*: owners, reasons, pictures to tensors.
// Private to trainer/data: the other headers of this folder do not show libav types.

#ifdef COSMOS_VIDEO

#include <filesystem>
#include <memory>
#include <string>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include "trainer/data/video_reader.h"

namespace cosmos::trainer::libav {

/// Deleter for the types whose free function takes a pointer to the pointer.
template <typename T, void (*free_function)(T**)>
struct Free {
  void operator()(T* object) const { free_function(&object); }
};
struct FreeScaler {
  void operator()(SwsContext* scaler) const { sws_freeContext(scaler); }
};
using PacketPtr = std::unique_ptr<AVPacket, Free<AVPacket, av_packet_free>>;
using FramePtr = std::unique_ptr<AVFrame, Free<AVFrame, av_frame_free>>;
using CodecPtr = std::unique_ptr<AVCodecContext, Free<AVCodecContext, avcodec_free_context>>;
using ScalerPtr = std::unique_ptr<SwsContext, FreeScaler>;

/// From now on libav's own messages go nowhere; each thread's last error is kept for reason().
void capture_messages();
/// Forgets the kept message, so that the next reason() is about what follows.
void forget_message();
/// "moov atom not found (Invalid data found when processing input)".
std::string reason(int error);

PacketPtr new_packet();
FramePtr new_frame();

/// A media file opened for reading, and its one video stream.
///
/// The bytes come through our own descriptor and every further open is refused, so that a playlist
/// or a reference inside a hostile file reaches no other file and no network.
class Input {
 public:
  Input(const std::filesystem::path& path, const MediaLimits& limits);
  ~Input();
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  AVFormatContext* format() const { return format_; }
  AVStream* stream() const { return stream_; }
  /// Next packet of the video stream; false at the end of the file.
  bool read(AVPacket* packet);
  /// A decoder for the stream, opened; it exports motion vectors where told and able to.
  CodecPtr decoder(bool motion_vectors = false) const;

 private:
  void close();

  std::string name_;
  MediaLimits limits_;
  int file_ = -1;
  AVIOContext* io_ = nullptr;
  AVFormatContext* format_ = nullptr;
  AVStream* stream_ = nullptr;
};

/// How a stored picture is turned to be shown: transposed first, then mirrored.
struct Turn {
  bool transpose = false, mirror_x = false, mirror_y = false;
};
/// The stream's display matrix, rounded to quarter turns and mirrors.
Turn turn_of(const AVStream* stream);
/// The frame's own: pictures keep their EXIF orientation there.
Turn turn_of(const AVFrame* frame);

/// Decoded pictures to RGB: scales, turns, crops or pads to `size`.
class ToRgb {
 public:
  ToRgb(FrameSize size, Turn turn, double pixel_aspect, MediaLimits limits)
      : size_(size), turn_(turn), pixel_aspect_(pixel_aspect), limits_(limits) {}

  /// uint8 [H, W, 3], contiguous.
  Tensor operator()(const AVFrame* frame);

 private:
  Tensor scaled(const AVFrame* frame, int64_t height, int64_t width);

  FrameSize size_;
  Turn turn_;
  double pixel_aspect_;
  MediaLimits limits_;
  ScalerPtr scaler_;
};

}  // namespace cosmos::trainer::libav

#endif  // COSMOS_VIDEO
