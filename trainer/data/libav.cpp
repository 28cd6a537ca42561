#ifdef COSMOS_VIDEO

#include "trainer/data/libav.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <sys/stat.h>
#include <unistd.h>

namespace cosmos::trainer::libav {
namespace {

thread_local std::string last_message;

void keep_message(void*, int level, const char* format, va_list arguments) {
  if (level > AV_LOG_ERROR) return;
  char line[512];
  vsnprintf(line, sizeof(line), format, arguments);
  std::string text(line);
  while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.pop_back();
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';  // the file's own bytes may be in it
  if (!text.empty()) last_message = text;
}

int read_bytes(void* opaque, uint8_t* buffer, int size) {
  const int file = *static_cast<int*>(opaque);
  for (;;) {
    const ssize_t count = ::read(file, buffer, size);
    if (count > 0) return static_cast<int>(count);
    if (count == 0) return AVERROR_EOF;
    if (errno != EINTR) return AVERROR(errno);
  }
}

int64_t seek_bytes(void* opaque, int64_t offset, int whence) {
  const int file = *static_cast<int*>(opaque);
  if (whence & AVSEEK_SIZE) {
    const off_t here = ::lseek(file, 0, SEEK_CUR), end = ::lseek(file, 0, SEEK_END);
    ::lseek(file, here, SEEK_SET);
    return end;
  }
  const off_t place = ::lseek(file, offset, whence & ~AVSEEK_FORCE);
  return place < 0 ? AVERROR(errno) : place;
}

int refuse_open(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EPERM);
}

}  // namespace

void capture_messages() {
  static std::once_flag once;
  std::call_once(once, [] { av_log_set_callback(keep_message); });
}

void forget_message() {
  last_message.clear();
}

std::string reason(int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(error, text, sizeof(text));
  return last_message.empty() ? text : last_message + " (" + text + ")";
}

namespace {

// Unspecified matrices count as BT.601, as the ffmpeg program has it.
void set_colours(SwsContext* scaler, const AVFrame* frame) {
  const std::string format = av_get_pix_fmt_name(static_cast<AVPixelFormat>(frame->format));
  const bool full = frame->color_range == AVCOL_RANGE_JPEG || format.rfind("yuvj", 0) == 0;
  const int matrix = frame->colorspace == AVCOL_SPC_RGB ? SWS_CS_DEFAULT : frame->colorspace;
  sws_setColorspaceDetails(scaler, sws_getCoefficients(matrix), full,
                           sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
}

}  // namespace

PacketPtr new_packet() {
  PacketPtr packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  return packet;
}

FramePtr new_frame() {
  FramePtr frame(av_frame_alloc());
  if (!frame) throw std::bad_alloc();
  return frame;
}

Input::Input(const std::filesystem::path& path, const MediaLimits& limits)
    : name_(path.string()), limits_(limits) {
  capture_messages();
  forget_message();
  // O_NONBLOCK: opening a pipe must not hang; regular files ignore it.
  file_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  require(file_ >= 0, name_, ": ", std::strerror(errno));
  try {
    struct stat status {};
    const bool known = ::fstat(file_, &status) == 0;
    require(known && S_ISREG(status.st_mode), name_,
            S_ISDIR(status.st_mode) ? ": is a folder" : ": is a device or pipe",
            ", not a media file");
    require(status.st_size > 0, name_, ": is empty (0 bytes)");
    constexpr int kBuffer = 1 << 16;
    io_ = avio_alloc_context(static_cast<unsigned char*>(av_malloc(kBuffer)), kBuffer, 0, &file_,
                             read_bytes, nullptr, seek_bytes);
    format_ = avformat_alloc_context();
    if (!io_ || !format_) throw std::bad_alloc();
    format_->pb = io_;
    format_->io_open = refuse_open;
    int error = avformat_open_input(&format_, "", nullptr, nullptr);
    require(error >= 0, name_, ": is not a readable video or picture: ", reason(error));
    error = avformat_find_stream_info(format_, nullptr);
    require(error >= 0, name_, ": is not a readable video or picture: ", reason(error));
    const int index = av_find_best_stream(format_, AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    require(index >= 0 && !(format_->streams[index]->disposition & AV_DISPOSITION_ATTACHED_PIC),
            name_, ": holds no video stream");
    stream_ = format_->streams[index];
    const AVCodecParameters* coded = stream_->codecpar;
    require(coded->width > 0 && coded->height > 0 && stream_->time_base.num > 0 &&
                stream_->time_base.den > 0,
            name_, ": the video stream states no picture size or time base: the file is damaged");
    require(coded->width <= limits.max_side && coded->height <= limits.max_side &&
                int64_t{coded->width} * coded->height <= limits.max_pixels,
            name_, ": pictures of ", coded->width, " x ", coded->height,
            " pixels are larger than the limit (", limits.max_side, " a side, ", limits.max_pixels,
            " in all)");
    for (unsigned i = 0; i < format_->nb_streams; ++i)
      if (static_cast<int>(i) != index) format_->streams[i]->discard = AVDISCARD_ALL;
  } catch (...) {
    close();
    throw;
  }
}

Input::~Input() {
  close();
}

void Input::close() {
  if (format_) avformat_close_input(&format_);
  if (io_) {
    av_freep(&io_->buffer);
    avio_context_free(&io_);
  }
  if (file_ >= 0) ::close(file_);
  file_ = -1;
}

bool Input::read(AVPacket* packet) {
  for (;;) {
    av_packet_unref(packet);
    // A truncated file ends with an I/O error or with EOF, as its container likes; both are the
    // end.
    if (av_read_frame(format_, packet) < 0) return false;
    if (packet->stream_index == stream_->index) return true;
  }
}

CodecPtr Input::decoder(bool motion_vectors) const {
  const AVCodec* codec = avcodec_find_decoder(stream_->codecpar->codec_id);
  require(codec != nullptr, name_, ": this FFmpeg has no decoder for ",
          avcodec_get_name(stream_->codecpar->codec_id));
  CodecPtr context(avcodec_alloc_context3(codec));
  if (!context) throw std::bad_alloc();
  int error = avcodec_parameters_to_context(context.get(), stream_->codecpar);
  context->pkt_timebase = stream_->time_base;
  context->max_pixels = limits_.max_pixels;
  context->thread_count = static_cast<int>(std::clamp<int64_t>(limits_.threads, 1, 64));
  if (motion_vectors) context->flags2 |= AV_CODEC_FLAG2_EXPORT_MVS;
  if (error >= 0) error = avcodec_open2(context.get(), codec, nullptr);
  require(error >= 0, name_, ": the ", codec->name, " decoder refuses the stream: ", reason(error));
  return context;
}

namespace {

Turn turn_of_matrix(const uint8_t* bytes) {
  if (!bytes) return {};
  int32_t m[9];  // shown x = m0 x + m3 y, shown y = m1 x + m4 y
  std::memcpy(m, bytes, sizeof(m));
  const auto magnitude = [&](int i) { return std::abs(static_cast<double>(m[i])); };
  if (magnitude(1) + magnitude(3) > magnitude(0) + magnitude(4))
    return {.transpose = true, .mirror_x = m[3] < 0, .mirror_y = m[1] < 0};
  return {.transpose = false, .mirror_x = m[0] < 0, .mirror_y = m[4] < 0};
}

}  // namespace

Turn turn_of(const AVStream* stream) {
#if LIBAVFORMAT_VERSION_MAJOR >= 61
  const AVPacketSideData* data =
      av_packet_side_data_get(stream->codecpar->coded_side_data,
                              stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
  const uint8_t* bytes = data && data->size >= 36 ? data->data : nullptr;
#else
  size_t size = 0;
  const uint8_t* bytes = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (size < 36) bytes = nullptr;
#endif
  return turn_of_matrix(bytes);
}

Turn turn_of(const AVFrame* frame) {
  const AVFrameSideData* data = av_frame_get_side_data(frame, AV_FRAME_DATA_DISPLAYMATRIX);
  return turn_of_matrix(data && data->size >= 36 ? data->data : nullptr);
}

Tensor ToRgb::scaled(const AVFrame* frame, int64_t height, int64_t width) {
  const bool same = frame->height == height && frame->width == width;
  const bool shrinks = frame->height >= height && frame->width >= width;
  // Unscaled pictures go the way the ffmpeg program takes; scaled ones the exact, portable one. A
  // smaller picture is the mean over areas: sharper filters leave aliasing that no model can learn.
  const int flags = same || size_.filter == Filter::kBicubic
                        ? SWS_BICUBIC
                        : (shrinks ? SWS_AREA : SWS_BICUBIC) | SWS_ACCURATE_RND |
                              SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_BITEXACT;
  const SwsContext* before = scaler_.get();
  scaler_.reset(sws_getCachedContext(scaler_.release(), frame->width, frame->height,
                                     static_cast<AVPixelFormat>(frame->format),
                                     static_cast<int>(width), static_cast<int>(height),
                                     AV_PIX_FMT_RGB24, flags, nullptr, nullptr, nullptr));
  require(scaler_ != nullptr, "pixel format ", frame->format, " cannot be converted to RGB");
  if (scaler_.get() != before) set_colours(scaler_.get(), frame);
  // swscale writes whole vectors: rows need slack behind them.
  const int64_t stride = (width * 3 + 63) / 64 * 64 + 64;
  Tensor rows = torch::empty({height, stride}, torch::kUInt8);
  uint8_t* planes[4] = {rows.data_ptr<uint8_t>(), nullptr, nullptr, nullptr};
  int strides[4] = {static_cast<int>(stride), 0, 0, 0};
  const int done =
      sws_scale(scaler_.get(), frame->data, frame->linesize, 0, frame->height, planes, strides);
  require(done == height, "a picture cannot be scaled to ", height, " x ", width);
  return rows.narrow(1, 0, width * 3).reshape({height, width, 3});
}

Tensor ToRgb::operator()(const AVFrame* frame) {
  require(frame->width <= limits_.max_side && frame->height <= limits_.max_side &&
              int64_t{frame->width} * frame->height <= limits_.max_pixels,
          "a frame of ", frame->width, " x ", frame->height, " pixels is larger than the limit");
  // As shown, before scaling.
  const double shown_h = turn_.transpose ? frame->width : frame->height;
  const double shown_w = (turn_.transpose ? frame->height : frame->width) * pixel_aspect_;
  const bool keep = size_.height == 0;
  int64_t height = keep ? std::llround(shown_h) : size_.height;
  int64_t width = keep ? (turn_.transpose ? frame->height : frame->width) : size_.width;
  if (!keep && size_.fit != Fit::kStretch) {
    const double sy = height / shown_h, sx = width / shown_w;
    const double s = size_.fit == Fit::kCrop ? std::max(sx, sy) : std::min(sx, sy);
    // The side that decides is met exactly, the other is rounded.
    if (s != sy) height = std::max<int64_t>(1, std::llround(shown_h * s));
    if (s != sx) width = std::max<int64_t>(1, std::llround(shown_w * s));
  }
  require(height <= limits_.max_pixels / width, "a picture of ", frame->width, " x ", frame->height,
          " pixels is too elongated to be brought to ", size_.width, " x ", size_.height,
          " (fit: stretch or pad would do)");
  Tensor image =
      turn_.transpose ? scaled(frame, width, height).transpose(0, 1) : scaled(frame, height, width);
  if (turn_.mirror_x) image = image.flip(1);
  if (turn_.mirror_y) image = image.flip(0);
  if (keep || (height == size_.height && width == size_.width)) return image.contiguous();
  if (size_.fit == Fit::kCrop)
    return image.narrow(0, (height - size_.height) / 2, size_.height)
        .narrow(1, (width - size_.width) / 2, size_.width)
        .contiguous();
  Tensor canvas = torch::zeros({size_.height, size_.width, 3}, torch::kUInt8);
  canvas.narrow(0, (size_.height - height) / 2, height)
      .narrow(1, (size_.width - width) / 2, width)
      .copy_(image);
  return canvas;
}

}  // namespace cosmos::trainer::libav

#endif  // COSMOS_VIDEO
