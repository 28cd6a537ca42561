#include "modules/vlm/processor.h"

#include <cstdio>

#include "modules/hub/json_file.h"

namespace cosmos::modules {
namespace {

constexpr const char* kImagePad = "<|image_pad|>";
constexpr const char* kVideoPad = "<|video_pad|>";
constexpr double kUnknownFps = 24;

std::array<int64_t, 3> grid_of(int64_t frames, const FrameArea& area, const PixelConfig& config) {
  const int64_t group = config.temporal_patch_size;
  return {(frames + group - 1) / group, area[0] / config.patch_size, area[1] / config.patch_size};
}

/// x: [n, 3, h, w], n a multiple of the temporal patch.
Patches cut(const Tensor& x, const PixelConfig& config) {
  const int64_t patch = config.patch_size, merge = config.merge_size,
                group = config.temporal_patch_size;
  const auto grid = grid_of(x.size(0), {x.size(2), x.size(3)}, config);
  const auto [t, h, w] = grid;
  // [t, group, 3, h / merge, merge, patch, w / merge, merge, patch]
  const Tensor cells = x.view({t, group, 3, h / merge, merge, patch, w / merge, merge, patch});
  return {.pixels = cells.permute({0, 3, 6, 4, 7, 2, 1, 5, 8})
                        .reshape({t * h * w, 3 * group * patch * patch}),
          .grid = grid};
}

void check_frames(const Tensor& frames, int64_t rank, const char* what) {
  require(frames.defined() && frames.dim() == rank && frames.size(-1) == 3 &&
              frames.scalar_type() == torch::kUInt8,
          what, ": expected uint8 ", rank == 3 ? "[H, W, 3]" : "[n, H, W, 3]");
}

Tensor grid_tensor(const std::vector<std::array<int64_t, 3>>& grids) {
  Tensor out = torch::empty({static_cast<int64_t>(grids.size()), 3}, torch::kInt64);
  for (std::size_t i = 0; i < grids.size(); ++i)
    std::copy(grids[i].begin(), grids[i].end(), out[static_cast<int64_t>(i)].data_ptr<int64_t>());
  return out;
}

std::string repeated(const char* token, int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += token;
  return text;
}

}  // namespace

Tensor resized_pixels(const Tensor& frames, const FrameArea& area, const PixelConfig& config) {
  Tensor x = frames.permute({0, 3, 1, 2}).contiguous();
  // uint8 in and out, in integers: the reference resizes so, and rounds there.
  if (x.size(2) != area[0] || x.size(3) != area[1])
    x = at::_upsample_bicubic2d_aa(x, area, /*align_corners=*/false, std::nullopt, std::nullopt);
  x = x.to(torch::kFloat32);
  const double scale = config.do_rescale ? 1.0 / config.rescale_factor : 1.0;
  if (!config.do_normalize) return config.do_rescale ? x.mul_(config.rescale_factor) : x;
  const auto constant = [&](const std::vector<double>& values) {
    return (torch::tensor(values, torch::kFloat32) * scale).view({1, 3, 1, 1});
  };
  return x.sub_(constant(config.image_mean)).div_(constant(config.image_std));
}

std::array<int64_t, 3> image_grid(int64_t height, int64_t width, const PixelConfig& config) {
  return grid_of(1, image_area(height, width, config), config);
}

std::array<int64_t, 3> video_grid(int64_t frames, int64_t height, int64_t width,
                                  const ProcessorConfig& config) {
  return grid_of(frames, video_area(frames, height, width, config), config.video);
}

Patches image_patches(const Tensor& image, const PixelConfig& config) {
  check_frames(image, 3, "image");
  const Tensor x =
      resized_pixels(image.unsqueeze(0), image_area(image.size(0), image.size(1), config), config);
  return cut(x.expand({config.temporal_patch_size, -1, -1, -1}).contiguous(), config);
}

Patches video_patches(const Tensor& frames, const ProcessorConfig& config) {
  check_frames(frames, 4, "video");
  const FrameArea area = video_area(frames.size(0), frames.size(1), frames.size(2), config);
  Tensor x = resized_pixels(frames, area, config.video);
  const int64_t group = config.video.temporal_patch_size;
  if (const int64_t pad = (group - x.size(0) % group) % group; pad > 0)
    x = torch::cat({x, x.slice(0, -1).expand({pad, -1, -1, -1})});
  return cut(x, config.video);
}

std::vector<double> group_seconds(const VideoFrames& video, int64_t group) {
  const double fps = video.fps > 0 ? video.fps : kUnknownFps;
  std::vector<double> at;
  for (const int64_t index : video.indices) at.push_back(static_cast<double>(index) / fps);
  if (video.indices.empty())
    for (int64_t i = 0; i < video.frames.size(0); ++i) at.push_back(static_cast<double>(i) / fps);
  while (at.size() % static_cast<std::size_t>(group) != 0) at.push_back(at.back());
  std::vector<double> seconds;
  for (std::size_t i = 0; i < at.size(); i += static_cast<std::size_t>(group))
    seconds.push_back((at[i] + at[i + static_cast<std::size_t>(group) - 1]) / 2);
  return seconds;
}

VlmProcessor VlmProcessor::load(const std::filesystem::path& dir) {
  VlmProcessor processor{.config = ProcessorConfig::load(dir)};
  processor.format =
      processor.config.family == VlmFamily::kQwen3VL ? ChatFormat::kQwen3VL : ChatFormat::kQwen25VL;
  processor.tokenizer = TextTokenizer::load(dir);
  return processor;
}

std::string VlmProcessor::expand(const std::string& text,
                                 const std::vector<std::array<int64_t, 3>>& images,
                                 const std::vector<std::array<int64_t, 3>>& videos,
                                 const std::vector<std::vector<double>>& seconds) const {
  const auto tokens = [](const std::array<int64_t, 3>& grid, int64_t merge) {
    return grid[1] * grid[2] / (merge * merge);
  };
  const auto image = [&](std::size_t i) {
    return repeated(kImagePad, images[i][0] * tokens(images[i], config.image.merge_size));
  };
  const auto video = [&](std::size_t i) {
    const int64_t count = tokens(videos[i], config.video.merge_size);
    if (config.family == VlmFamily::kQwen25VL) return repeated(kVideoPad, videos[i][0] * count);
    std::string out;
    for (int64_t t = 0; t < videos[i][0]; ++t) {
      char stamp[48];
      std::snprintf(stamp, sizeof stamp, "<%.1f seconds>", seconds[i][static_cast<std::size_t>(t)]);
      out += stamp + ("<|vision_start|>" + repeated(kVideoPad, count)) + "<|vision_end|>";
    }
    return out;
  };
  std::string out;
  std::size_t next_image = 0, next_video = 0, at = 0;
  while (true) {
    const std::size_t i = text.find(kImagePad, at), v = text.find(kVideoPad, at);
    if (i == std::string::npos && v == std::string::npos) break;
    const bool is_image = i < v;
    const std::size_t begin = std::min(i, v);
    std::size_t& next = is_image ? next_image : next_video;
    require(next < (is_image ? images : videos).size(), "the text has more ",
            is_image ? kImagePad : kVideoPad, " than there are ", is_image ? "images" : "videos",
            " (", next, ")");
    out += text.substr(at, begin - at) + (is_image ? image(next) : video(next));
    ++next;
    at = begin + std::char_traits<char>::length(is_image ? kImagePad : kVideoPad);
  }
  require(next_image == images.size() && next_video == videos.size(), "the text has ", next_image,
          " images and ", next_video, " videos, given are ", images.size(), " and ", videos.size());
  return out + text.substr(at);
}

TensorMap VlmProcessor::encode_text(const std::string& text, const std::vector<Tensor>& images,
                                    const std::vector<VideoFrames>& videos) const {
  TensorMap out;
  std::vector<std::array<int64_t, 3>> image_grids, video_grids;
  std::vector<std::vector<double>> seconds;
  Tensors pixels;
  for (const Tensor& image : images) {
    Patches patches = image_patches(image, config.image);
    image_grids.push_back(patches.grid);
    pixels.push_back(std::move(patches.pixels));
  }
  if (!images.empty()) {
    out["pixel_values"] = torch::cat(pixels);
    out["image_grid_thw"] = grid_tensor(image_grids);
  }
  pixels.clear();
  std::vector<double> grid_seconds;
  for (const VideoFrames& video : videos) {
    Patches patches = video_patches(video.frames, config);
    require(
        video.indices.empty() || static_cast<int64_t>(video.indices.size()) == video.frames.size(0),
        "video: ", video.indices.size(), " frame numbers for ", video.frames.size(0), " frames");
    const int64_t group = config.video.temporal_patch_size;
    seconds.push_back(group_seconds(video, group));
    video_grids.push_back(patches.grid);
    pixels.push_back(std::move(patches.pixels));
    double fps = video.fps > 0 ? video.fps : kUnknownFps;
    if (video.fps > 0 && video.total_frames > 0 && !video.indices.empty())
      fps *= static_cast<double>(video.indices.size()) / static_cast<double>(video.total_frames);
    grid_seconds.push_back(static_cast<double>(group) / fps);
  }
  if (!videos.empty()) {
    out["pixel_values_videos"] = torch::cat(pixels);
    out["video_grid_thw"] = grid_tensor(video_grids);
    if (config.family == VlmFamily::kQwen25VL)
      out["second_per_grid_ts"] = torch::tensor(grid_seconds, torch::kFloat32);
  }
  const Tensor ids =
      torch::tensor(tokenizer->encode(expand(text, image_grids, video_grids, seconds)))
          .unsqueeze(0);
  out["input_ids"] = ids;
  out["attention_mask"] = torch::ones_like(ids);
  out["mm_token_type_ids"] =
      ids.eq(tokenizer->id(kImagePad)).to(torch::kInt64) + 2 * ids.eq(tokenizer->id(kVideoPad));
  return out;
}

TensorMap VlmProcessor::encode(const Conversation& conversation, const std::vector<Tensor>& images,
                               const std::vector<VideoFrames>& videos,
                               const ChatOptions& options) const {
  return encode_text(render_chat(conversation, format, options), images, videos);
}

}  // namespace cosmos::modules
