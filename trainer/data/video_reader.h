#pragma once

// Video and pictures into tensors, through FFmpeg's libav* (any codec and container it was built
// with). Frames are uint8 RGB [T, H, W, 3], as shown on a screen: rotation metadata is applied.
//
// A clip's time axis is the list of its frames' presentation times in seconds, the first at 0. It
// is read from the packets themselves, so a missing or wrong duration in the header, or a variable
// frame rate, changes nothing. Reading at `fps` takes, for each time k / fps, the frame nearest to
// it (the earlier one of two equally near); reading at 0 takes every frame as it is.
//
// Media is untrusted: sizes are bounded, references to other files are refused, damage gives an
// Error that names the file and the reason. Built without FFmpeg every function throws an Error
// that says so (media_available() tells beforehand).

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// Bounds against hostile or broken media; crossing one throws Error.
struct MediaLimits {
  int64_t max_side = 16384;               ///< pixels
  int64_t max_pixels = int64_t{1} << 26;  ///< of a picture: 8192 x 8192
  int64_t max_frames = 4'000'000;         ///< of a file
  int64_t max_bytes = int64_t{16} << 30;  ///< of the tensor one call returns
  int64_t threads = 1;                    ///< decoder threads of one call
};

/// How a picture of another aspect ratio comes to the wanted size.
enum class Fit {
  kCrop,     ///< scaled to cover, the middle is kept
  kPad,      ///< scaled to fit inside, black around it
  kStretch,  ///< scaled by different factors
};

/// What a picture's pixels are made of when it is scaled.
enum class Filter {
  kArea,     ///< smaller: the mean over areas; larger: bicubic
  kBicubic,  ///< as the ffmpeg program does unless told otherwise, bit for bit (`-s 48x27`)
};

/// Height and width wanted; 0, 0 keeps the clip's own.
struct FrameSize {
  int64_t height = 0, width = 0;
  Fit fit = Fit::kCrop;
  Filter filter = Filter::kArea;
};

/// Where a clip's times come from.
enum class Timing {
  kPackets,  ///< the packets carry them: reading can start at a keyframe
  kFrames,   ///< the decoder finds them: reading starts at the beginning
  kCount,    ///< there are none: frames are counted at the average rate, from the beginning
};

/// What a clip is.
struct VideoInfo {
  int64_t height = 0, width = 0;  ///< as shown: after rotation
  double pixel_aspect = 1;        ///< width / height of a shown pixel; 1 is square
  double fps = 0;                 ///< average frame rate
  std::vector<double> times;      ///< of each frame, seconds, ascending, the first 0
  std::string codec, container;   ///< libav's names: h264; mov,mp4,...
  Timing timing = Timing::kPackets;
  int64_t zero = 0;  ///< the first frame's time in ticks of the stream

  int64_t frames() const { return static_cast<int64_t>(times.size()); }
  /// Seconds, the last frame's share included.
  double duration() const { return times.empty() ? 0 : times.back() + 1 / fps; }
};

/// Part of a clip: `frames` frames at `fps` from number `first` of that rate on.
struct Window {
  int64_t first = 0;
  int64_t frames = 0;  ///< 0: to the end
  double fps = 0;      ///< 0: the clip's own frames, whatever their times
  FrameSize size{};
};

/// True when this build has FFmpeg.
bool media_available();

/// Opens the file and reads through its packets (nothing is decoded, unless the packets lack
/// times).
VideoInfo probe_video(const std::filesystem::path& path, const MediaLimits& limits = {});

/// Times of all frames that the clip has at `fps`: k / fps up to the last frame; the clip's own
/// times for 0.
std::vector<double> timeline(const VideoInfo& info, double fps, const MediaLimits& limits = {});

/// A window of a clip: uint8 [T, H, W, 3]. Seeks to the keyframe before it and decodes from there.
/// Throws Error when the clip is shorter than the window (with the numbers), or does not decode.
Tensor read_video(const std::filesystem::path& path, const VideoInfo& info, const Window& window,
                  const MediaLimits& limits = {});
/// The same for a clip met only once.
Tensor read_video(const std::filesystem::path& path, const Window& window = {},
                  const MediaLimits& limits = {});

/// The frames nearest to the given ascending times (seconds from the first frame).
Tensor read_frames_at(const std::filesystem::path& path, const VideoInfo& info,
                      const std::vector<double>& times, const FrameSize& size,
                      const MediaLimits& limits = {});

/// One picture (PNG, JPEG, WebP, ...): uint8 [H, W, 3]. Transparency is dropped.
Tensor read_image(const std::filesystem::path& path, const FrameSize& size = {},
                  const MediaLimits& limits = {});

/// [T, H, W, 3] -> [3, T, H, W], contiguous: the layout of models.
Tensor channels_first(const Tensor& frames);
/// The inverse.
Tensor channels_last(const Tensor& video);

}  // namespace cosmos::trainer
