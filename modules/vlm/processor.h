#pragma once

// Conversations with images and videos as the tensors that a vision language model reads: equal to
// transformers' Qwen2_5_VLProcessor and Qwen3VLProcessor on the same frames.
//
//   VlmProcessor processor = VlmProcessor::load("Cosmos-Reason2-2B");
//   auto frames = sample_frames(info.frames, info.fps, processor.config);  // which to decode
//   TensorMap inputs = processor.encode(conversation, {}, {{clip, info.fps, info.frames, frames}});

#include <memory>

#include "modules/text/tokenizer.h"
#include "modules/vlm/chat_template.h"
#include "modules/vlm/processor_config.h"

namespace cosmos::modules {

/// A picture or a video cut into patches. Rows are patches: for each group of temporal_patch_size
/// frames, cells of merge_size x merge_size patches from left to right, top to bottom; within a
/// cell the same; columns are channel, frame, row, column of a patch.
struct Patches {
  Tensor pixels;                  ///< float32 [t h w, 3 temporal_patch_size patch_size²]
  std::array<int64_t, 3> grid{};  ///< t, h, w in patches
};

/// Frames that were taken from a video.
struct VideoFrames {
  Tensor frames;                   ///< uint8 [n, H, W, 3]
  double fps = 0;                  ///< of the whole video; 0: unknown, taken as 24
  int64_t total_frames = 0;        ///< of the whole video; 0: unknown
  std::vector<int64_t> indices{};  ///< which these are; empty: all, in order
};

/// frames: uint8 [n, H, W, 3] -> float32 [n, 3, h, w], resized (bicubic, over areas) to `area`
/// (h, w), in [0, 1] and normalised, as far as the config asks for it.
Tensor resized_pixels(const Tensor& frames, const FrameArea& area, const PixelConfig& config);

/// image: uint8 [H, W, 3], RGB.
Patches image_patches(const Tensor& image, const PixelConfig& config);
/// frames: uint8 [n, H, W, 3]. The last frame is repeated to fill its group.
Patches video_patches(const Tensor& frames, const ProcessorConfig& config);

/// The grid of patches without the pixels, for counting tokens.
std::array<int64_t, 3> image_grid(int64_t height, int64_t width, const PixelConfig& config);
std::array<int64_t, 3> video_grid(int64_t frames, int64_t height, int64_t width,
                                  const ProcessorConfig& config);

/// Seconds of each group of frames: the mean of its first and last frame's.
std::vector<double> group_seconds(const VideoFrames& video, int64_t group);

struct VlmProcessor {
  ProcessorConfig config{};
  ChatFormat format = ChatFormat::kQwen25VL;
  std::shared_ptr<const TextTokenizer> tokenizer = nullptr;

  static VlmProcessor load(const std::filesystem::path& dir);

  /// input_ids, attention_mask, mm_token_type_ids int64 [1, L]; pixel_values, image_grid_thw
  /// [images, 3]; pixel_values_videos, video_grid_thw [videos, 3]; for Qwen2.5-VL
  /// second_per_grid_ts float32 [videos]. Media in the order of their placeholders. Throws Error
  /// unless text has as many placeholders as there are media.
  TensorMap encode_text(const std::string& text, const std::vector<Tensor>& images,
                        const std::vector<VideoFrames>& videos) const;
  /// The conversation's media are given decoded, in its order.
  TensorMap encode(const Conversation& conversation, const std::vector<Tensor>& images,
                   const std::vector<VideoFrames>& videos, const ChatOptions& options = {}) const;

  /// `text` with every placeholder written out for the grid of its medium. `seconds` of each video:
  /// group_seconds(), Qwen3-VL only.
  std::string expand(const std::string& text, const std::vector<std::array<int64_t, 3>>& images,
                     const std::vector<std::array<int64_t, 3>>& videos,
                     const std::vector<std::vector<double>>& seconds) const;
};

}  // namespace cosmos::modules
