#pragma once

// preprocessor_config.json and its relatives: how pictures and videos become patches.

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {

/// `size`: pixels of an image, or of a video, at least and at most. (transformers' names; they are
/// areas, not edges.)
struct PixelLimits {
  int64_t shortest_edge = 256 * 28 * 28;  ///< 200704
  int64_t longest_edge = 1280 * 28 * 28;  ///< 1003520

  template <typename Visitor>
  void fields(Visitor& v) {
    v("shortest_edge", shortest_edge, "pixels at least (min_pixels)");
    v("longest_edge", longest_edge, "pixels at most (max_pixels)");
  }
};

/// Of images, and the part that videos share.
struct PixelConfig {
  int64_t patch_size = 14;
  int64_t temporal_patch_size = 2;
  int64_t merge_size = 2;
  PixelLimits size{};
  std::optional<int64_t> min_pixels = std::nullopt;  ///< older spelling of size.shortest_edge
  std::optional<int64_t> max_pixels = std::nullopt;  ///< older spelling of size.longest_edge
  bool do_resize = true;
  bool do_rescale = true;
  bool do_normalize = true;
  int64_t resample = 3;
  double rescale_factor = 1.0 / 255;
  std::vector<double> image_mean = {0.48145466, 0.4578275, 0.40821073};
  std::vector<double> image_std = {0.26862954, 0.26130258, 0.27577711};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("patch_size", patch_size, "edge of a patch");
    v("temporal_patch_size", temporal_patch_size, "frames of a patch");
    v("merge_size", merge_size, "edge, in patches, of what becomes one token");
    v("size", size, "pixels at least and at most");
    v("min_pixels", min_pixels, "pixels at least; wins over size");
    v("max_pixels", max_pixels, "pixels at most; wins over size");
    v("do_resize", do_resize, "false: sizes must fit as they are");
    v("do_rescale", do_rescale, "multiply by rescale_factor");
    v("do_normalize", do_normalize, "subtract image_mean, divide by image_std");
    v("resample", resample, "3: bicubic with antialiasing, the only one built in");
    v("rescale_factor", rescale_factor, "1 / 255");
    v("image_mean", image_mean, "of red, green, blue");
    v("image_std", image_std, "of red, green, blue");
  }

  int64_t factor() const { return patch_size * merge_size; }
  /// Throws Error on values that make no patches; `where` names the file.
  void check(const std::string& where);
};

struct VideoPixelConfig : PixelConfig {
  std::optional<double> fps = 2;                     ///< frames a second to take
  std::optional<int64_t> num_frames = std::nullopt;  ///< takes so many whatever the length
  int64_t min_frames = 4;
  int64_t max_frames = 768;
  bool do_sample_frames = true;
  /// Bounds each frame by its share of a budget as qwen-vl-utils does; transformers 5.23 does not
  /// unless it is asked to.
  std::optional<bool> cap_pixels_per_frame = std::nullopt;
  int64_t max_video_tokens = 128000;

  template <typename Visitor>
  void fields(Visitor& v) {
    PixelConfig::fields(v);
    v("fps", fps, "frames a second to take");
    v("num_frames", num_frames, "frames to take, in place of fps");
    v("min_frames", min_frames, "frames at least");
    v("max_frames", max_frames, "frames at most");
    v("do_sample_frames", do_sample_frames, "false: every frame is taken");
    v("cap_pixels_per_frame", cap_pixels_per_frame, "bound frames by their share of the budget");
    v("max_video_tokens", max_video_tokens, "the budget of cap_pixels_per_frame");
  }
};

/// The two families differ in how a video is resized, sampled and written into the prompt.
enum class VlmFamily { kQwen25VL, kQwen3VL };

struct ProcessorConfig {
  VlmFamily family = VlmFamily::kQwen25VL;
  PixelConfig image{};
  VideoPixelConfig video{};

  /// Defaults of a family's released models.
  static ProcessorConfig defaults(VlmFamily family);
  /// Of a model's folder: processor_config.json, else preprocessor_config.json and
  /// video_preprocessor_config.json (videos take the former where the latter is absent). The family
  /// is that of config.json's model_type, else of processor_class.
  static ProcessorConfig load(const std::filesystem::path& dir);
};

/// Height and width after resizing.
using FrameArea = std::array<int64_t, 2>;

/// Multiples of `factor` near height and width with an area within the limits. Throws Error for a
/// side ratio above 200.
FrameArea smart_resize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels,
                       int64_t max_pixels);
/// Qwen3-VL's for videos: the limits hold for frames * height * width.
FrameArea smart_resize_video(int64_t frames, int64_t height, int64_t width,
                             const VideoPixelConfig& config, int64_t max_pixels);

/// What a frame of an image or of a video of `frames` frames is resized to.
FrameArea image_area(int64_t height, int64_t width, const PixelConfig& config);
FrameArea video_area(int64_t frames, int64_t height, int64_t width, const ProcessorConfig& config);

/// Which frames of a video of `total` frames at `fps` a second are taken, rising. Throws Error when
/// there are fewer than the config asks for.
std::vector<int64_t> sample_frames(int64_t total, double fps, const ProcessorConfig& config);

}  // namespace cosmos::modules
