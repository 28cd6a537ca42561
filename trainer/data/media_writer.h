#pragma once

// Frames into files: clips, pictures, contact sheets. Every file is written under a temporary name
// beside its place and renamed when complete (modules/hub/atomic_file.h), so a full disk or a crash
// leaves nothing under the final name. Frames are uint8 RGB [T, H, W, 3], pictures [H, W, 3]. Built
// without FFmpeg the writers throw an Error that says so.

#include <filesystem>
#include <memory>
#include <string>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// How a clip is stored. The container follows from the file's ending (.mp4, .mkv, .webm, .avi,
/// .mov).
struct VideoOptions {
  double fps = 16;
  /// libav's name of an encoder ("libx264", "mjpeg", ...), or "" for the best one there is that
  /// players show: libx264, libopenh264, mpeg4 (mjpeg for .avi, libvpx-vp9 for .webm).
  std::string codec{};
  /// 0 to 51, lower is better: libx264's constant rate factor, translated for the others.
  double quality = 18;
  /// Frames between keyframes.
  int64_t keyframe_interval = 25;
};

/// A clip written frame by frame, for those too long to hold: coded bytes are kept in memory, and
/// the file is there once finish() returns. Left without finish() it leaves nothing.
class VideoWriter {
 public:
  VideoWriter(const std::filesystem::path& path, int64_t height, int64_t width,
              const VideoOptions& options = {});
  ~VideoWriter();
  VideoWriter(const VideoWriter&) = delete;
  VideoWriter& operator=(const VideoWriter&) = delete;

  void add(const Tensor& frames);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes a clip. Chroma is subsampled by two, so odd sizes are padded with a copy of the last row
/// or column.
void write_video(const std::filesystem::path& path, const Tensor& frames,
                 const VideoOptions& options = {});

/// A picture losslessly, as the bytes of a PNG file.
std::string png_bytes(const Tensor& image);
/// The same into a file.
void write_png(const std::filesystem::path& path, const Tensor& image);

/// Tiles frames in rows of `columns`, `gap` pixels of white between them: [H', W', 3].
Tensor contact_sheet(const Tensor& frames, int64_t columns, int64_t gap = 2);

/// Model values in [-1, 1], [3, T, H, W], any floating dtype -> uint8 frames [T, H, W, 3].
Tensor to_frames(const Tensor& video);
/// The inverse: uint8 frames [T, H, W, 3] -> float32 [3, T, H, W] in [-1, 1].
Tensor from_frames(const Tensor& frames);

}  // namespace cosmos::trainer
