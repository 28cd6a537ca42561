#include "trainer/data/media_writer.h"

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "modules/hub/atomic_file.h"
#include "trainer/data/libav.h"
#include "trainer/data/memory_file.h"

namespace cosmos::trainer {

namespace fs = std::filesystem;

Tensor contact_sheet(const Tensor& frames, int64_t columns, int64_t gap) {
  const auto [T, H, W, C] = dims<4>(frames, "contact_sheet");
  require(T > 0 && columns > 0 && gap >= 0, "contact_sheet: expected frames, columns and a gap");
  columns = std::min(columns, T);
  const int64_t rows = (T + columns - 1) / columns;
  Tensor sheet =
      torch::full({rows * (H + gap) - gap, columns * (W + gap) - gap, C}, 255, torch::kUInt8);
  for (int64_t t = 0; t < T; ++t)
    sheet.narrow(0, t / columns * (H + gap), H)
        .narrow(1, t % columns * (W + gap), W)
        .copy_(frames[t]);
  return sheet;
}

Tensor to_frames(const Tensor& video) {
  const Tensor levels = video.detach().to(torch::kCPU, torch::kFloat32).add(1).mul_(127.5).round_();
  return levels.clamp_(0, 255).to(torch::kUInt8).permute({1, 2, 3, 0}).contiguous();
}

Tensor from_frames(const Tensor& frames) {
  return frames.permute({3, 0, 1, 2}).to(torch::kFloat32).div_(127.5).sub_(1).contiguous();
}

namespace {

// [..., H, W, 3] as plain bytes on the CPU.
Tensor checked(const fs::path& path, const Tensor& x, int64_t rank) {
  require(x.defined() && x.dim() == rank && x.size(-1) == 3 && x.scalar_type() == torch::kUInt8 &&
              x.numel() > 0,
          path.string(), ": expected uint8 ", rank == 4 ? "[T, H, W, 3]" : "[H, W, 3]", ", got ",
          x.defined() ? std::string(c10::toString(x.scalar_type())) : "nothing", " ",
          x.defined() ? x.sizes() : at::IntArrayRef{});
  return x.to(torch::kCPU).contiguous();
}

}  // namespace

#ifdef COSMOS_VIDEO

using namespace libav;

namespace {

const AVCodec* choose_encoder(const fs::path& path, const std::string& name) {
  if (!name.empty()) {
    const AVCodec* codec = avcodec_find_encoder_by_name(name.c_str());
    require(codec && codec->type == AVMEDIA_TYPE_VIDEO, path.string(),
            ": this FFmpeg has no video encoder called \"", name, "\"");
    return codec;
  }
  std::vector<const char*> wanted{"libx264", "libopenh264", "mpeg4"};
  if (path.extension() == ".avi") wanted = {"mjpeg"};
  if (path.extension() == ".webm") wanted = {"libvpx-vp9", "libvpx"};
  for (const char* candidate : wanted)
    if (const AVCodec* codec = avcodec_find_encoder_by_name(candidate)) return codec;
  fail(path.string(), ": this FFmpeg has no encoder for ", path.extension().string(), " files");
}

AVPixelFormat pixel_format(const AVCodec* codec) {
  if (!codec->pix_fmts) return AV_PIX_FMT_YUV420P;
  for (const AVPixelFormat* f = codec->pix_fmts; *f != AV_PIX_FMT_NONE; ++f)
    if (*f == AV_PIX_FMT_YUV420P) return *f;
  return codec->pix_fmts[0];
}

CodecPtr open_encoder(const AVCodec* codec, int64_t height, int64_t width,
                      const VideoOptions& options, bool global_header) {
  CodecPtr context(avcodec_alloc_context3(codec));
  if (!context) throw std::bad_alloc();
  context->height = static_cast<int>(height);
  context->width = static_cast<int>(width);
  context->pix_fmt = pixel_format(codec);
  context->framerate = av_d2q(options.fps, 100000);
  context->time_base = av_inv_q(context->framerate);
  context->gop_size = static_cast<int>(options.keyframe_interval);
  context->thread_count = 1;  // clips here are small, and the bytes must not depend on the machine
  context->colorspace = AVCOL_SPC_SMPTE170M;  // the matrix swscale uses below, said in the file
  context->color_range = AVCOL_RANGE_MPEG;
  context->flags |= AV_CODEC_FLAG_BITEXACT | (global_header ? AV_CODEC_FLAG_GLOBAL_HEADER : 0);
  // x264's macroblock tree reads memory that nothing wrote: the same frames would give other bytes
  // each time. (Seen in 164.3095 with MALLOC_PERTURB_=85 ffmpeg -i testsrc2 ... -threads 1.)
  av_opt_set_int(context->priv_data, "mbtree", 0, 0);
  if (codec->id == AV_CODEC_ID_MJPEG) context->color_range = AVCOL_RANGE_JPEG;
  if (av_opt_set_double(context->priv_data, "crf", options.quality, 0) < 0) {
    // Encoders without a rate factor take a quantiser of 1 to 31.
    context->flags |= AV_CODEC_FLAG_QSCALE;
    context->global_quality =
        static_cast<int>(FF_QP2LAMBDA * std::clamp(options.quality * 31 / 51, 1.0, 31.0));
  }
  const int error = avcodec_open2(context.get(), codec, nullptr);
  require(error >= 0, "the ", codec->name, " encoder refuses ", height, " x ", width, " at ",
          options.fps, " fps: ", reason(error));
  return context;
}

/// One clip on its way into a file.
class ClipWriter {
 public:
  ClipWriter(const fs::path& path, int64_t height, int64_t width, const VideoOptions& options)
      : height_(height), width_(width), packet_(new_packet()), frame_(new_frame()) {
    AVFormatContext* format = nullptr;
    const std::string name = path.filename().string();
    int error = avformat_alloc_output_context2(&format, nullptr, nullptr, name.c_str());
    output_.reset(format);
    require(error >= 0 && !(output_->oformat->flags & AVFMT_NOFILE),
            "the ending names no container (try .mp4)");
    output_->flags |= AVFMT_FLAG_BITEXACT;  // no dates or versions in the file
    output_->pb = file_.io();
    codec_ = open_encoder(choose_encoder(path, options.codec), height + height % 2,
                          width + width % 2, options, output_->oformat->flags & AVFMT_GLOBALHEADER);
    stream_ = avformat_new_stream(output_.get(), nullptr);
    if (!stream_) throw std::bad_alloc();
    stream_->time_base = codec_->time_base;
    stream_->avg_frame_rate = codec_->framerate;
    avcodec_parameters_from_context(stream_->codecpar, codec_.get());
    error = avformat_write_header(output_.get(), nullptr);
    require(error >= 0, "cannot be written: ", reason(error));
    frame_->format = codec_->pix_fmt;
    frame_->height = codec_->height;
    frame_->width = codec_->width;
    frame_->color_range = codec_->color_range;
    frame_->colorspace = codec_->colorspace;
    if (av_frame_get_buffer(frame_.get(), 0) < 0) throw std::bad_alloc();
  }

  /// image: uint8 [H, W, 3] on the CPU, contiguous.
  void add(Tensor image) {
    if (height_ % 2) image = torch::cat({image, image.narrow(0, height_ - 1, 1)}, 0);
    if (width_ % 2) image = torch::cat({image, image.narrow(1, width_ - 1, 1)}, 1);
    const int height = codec_->height, width = codec_->width;
    if (!scaler_) {
      scaler_.reset(sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, codec_->pix_fmt,
                                   SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT, nullptr, nullptr,
                                   nullptr));
      if (!scaler_) throw std::bad_alloc();
      const int* table = sws_getCoefficients(SWS_CS_DEFAULT);
      sws_setColorspaceDetails(scaler_.get(), table, 1, table,
                               codec_->color_range == AVCOL_RANGE_JPEG, 0, 1 << 16, 1 << 16);
    }
    if (av_frame_make_writable(frame_.get()) < 0) throw std::bad_alloc();
    const uint8_t* planes[4] = {image.data_ptr<uint8_t>(), nullptr, nullptr, nullptr};
    const int strides[4] = {width * 3, 0, 0, 0};
    sws_scale(scaler_.get(), planes, strides, 0, height, frame_->data, frame_->linesize);
    frame_->pts = count_++;
    frame_->quality = codec_->global_quality;
    encode(frame_.get());
  }

  /// The file's bytes, complete.
  const std::string& finish() {
    encode(nullptr);
    const int error = av_write_trailer(output_.get());
    require(error >= 0, "cannot be finished: ", reason(error));
    avio_flush(output_->pb);
    return file_.bytes();
  }

 private:
  void encode(const AVFrame* frame) {
    int error = avcodec_send_frame(codec_.get(), frame);
    require(error >= 0, "frame ", count_, " cannot be encoded: ", reason(error));
    for (;;) {
      error = avcodec_receive_packet(codec_.get(), packet_.get());
      if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) return;
      require(error >= 0, "frame ", count_, " cannot be encoded: ", reason(error));
      if (packet_->duration == 0) packet_->duration = 1;
      av_packet_rescale_ts(packet_.get(), codec_->time_base, stream_->time_base);
      packet_->stream_index = stream_->index;
      error = av_interleaved_write_frame(output_.get(), packet_.get());
      require(error >= 0, "cannot be written: ", reason(error));
    }
  }

  int64_t height_, width_, count_ = 0;
  MemoryFile file_;
  OutputPtr output_;
  AVStream* stream_ = nullptr;
  CodecPtr codec_;
  PacketPtr packet_;
  FramePtr frame_;
  ScalerPtr scaler_;
};

std::string encode_png(const Tensor& image) {
  const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
  require(codec != nullptr, "this FFmpeg has no PNG encoder");
  CodecPtr context(avcodec_alloc_context3(codec));
  if (!context) throw std::bad_alloc();
  context->height = static_cast<int>(image.size(0));
  context->width = static_cast<int>(image.size(1));
  context->pix_fmt = AV_PIX_FMT_RGB24;
  context->time_base = {1, 1};
  context->thread_count = 1;
  int error = avcodec_open2(context.get(), codec, nullptr);
  require(error >= 0, "the PNG encoder refuses ", image.sizes(), ": ", reason(error));
  FramePtr frame = new_frame();
  frame->format = context->pix_fmt;
  frame->height = context->height;
  frame->width = context->width;
  if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
  const uint8_t* rows = image.data_ptr<uint8_t>();
  for (int y = 0; y < frame->height; ++y)
    std::copy_n(rows + int64_t{y} * frame->width * 3, frame->width * 3,
                frame->data[0] + int64_t{y} * frame->linesize[0]);
  PacketPtr packet = new_packet();
  error = avcodec_send_frame(context.get(), frame.get());
  if (error >= 0) error = avcodec_receive_packet(context.get(), packet.get());
  require(error >= 0, "cannot be encoded as PNG: ", reason(error));
  return {reinterpret_cast<const char*>(packet->data), static_cast<std::size_t>(packet->size)};
}

// Errors of `function` say where, once.
template <typename Function>
void naming(const fs::path& path, Function&& function) {
  capture_messages();
  forget_message();
  try {
    function();
  } catch (const Error& error) {
    const std::string what = error.what(), name = path.string();
    if (what.rfind(name + ":", 0) == 0) throw;
    fail(name, ": ", what);
  }
}

}  // namespace

struct VideoWriter::State {
  fs::path path;
  std::unique_ptr<ClipWriter> writer;
};

VideoWriter::VideoWriter(const fs::path& path, int64_t height, int64_t width,
                         const VideoOptions& options)
    : state_(std::make_unique<State>()) {
  require(options.fps > 0 && options.fps <= 1000, path.string(),
          ": fps: expected a rate in (0, 1000], got ", options.fps);
  state_->path = path;
  naming(path,
         [&] { state_->writer = std::make_unique<ClipWriter>(path, height, width, options); });
}

VideoWriter::~VideoWriter() = default;

void VideoWriter::add(const Tensor& frames) {
  const Tensor bytes = checked(state_->path, frames, 4);
  naming(state_->path, [&] {
    for (int64_t t = 0; t < bytes.size(0); ++t) state_->writer->add(bytes[t]);
  });
}

void VideoWriter::finish() {
  naming(state_->path,
         [&] { modules::write_file(state_->path, std::string(state_->writer->finish())); });
}

void write_video(const fs::path& path, const Tensor& frames, const VideoOptions& options) {
  const Tensor bytes = checked(path, frames, 4);
  VideoWriter writer(path, bytes.size(1), bytes.size(2), options);
  writer.add(bytes);
  writer.finish();
}

std::string png_bytes(const Tensor& image) {
  return encode_png(checked("PNG", image, 3));
}

void write_png(const fs::path& path, const Tensor& image) {
  const Tensor bytes = checked(path, image, 3);
  naming(path, [&] { modules::write_file(path, encode_png(bytes)); });
}

#else

namespace {
[[noreturn]] void no_media(const fs::path& path) {
  fail(path.string(),
       ": this build writes no video or pictures: built without FFmpeg (install "
       "libavformat-dev libavcodec-dev libswscale-dev and build again)");
}
}  // namespace

struct VideoWriter::State {};
VideoWriter::VideoWriter(const fs::path& path, int64_t, int64_t, const VideoOptions&) {
  no_media(path);
}
VideoWriter::~VideoWriter() = default;
void VideoWriter::add(const Tensor&) {}
void VideoWriter::finish() {}
void write_video(const fs::path& path, const Tensor& frames, const VideoOptions&) {
  checked(path, frames, 4);
  no_media(path);
}
std::string png_bytes(const Tensor& image) {
  checked("PNG", image, 3);
  no_media("PNG");
}
void write_png(const fs::path& path, const Tensor& image) {
  checked(path, image, 3);
  no_media(path);
}

#endif

}  // namespace cosmos::trainer
