#include "modules/vlm/processor_config.h"

#include <algorithm>
#include <cmath>

#include "modules/core/tensor.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

Json read_if_there(const fs::path& path) {
  return is_file(path) ? read_json(path) : Json::object();
}

VlmFamily family_of(const fs::path& dir, const Json& processor) {
  std::string name = read_if_there(dir / "config.json").value("model_type", "");
  if (name.empty()) name = processor.value("processor_class", "");
  const auto known = [&](const char* a, const char* b) {
    return name.rfind(a, 0) == 0 || name.rfind(b, 0) == 0;
  };
  require(known("qwen2_5_vl", "Qwen2_5_VL") || known("qwen2_vl", "Qwen2VL") ||
              known("qwen3_vl", "Qwen3VL"),
          dir.string(),
          ": expected a model_type (config.json) or processor_class of Qwen2.5-VL or "
          "Qwen3-VL, got \"",
          name, "\"");
  return known("qwen3_vl", "Qwen3VL") ? VlmFamily::kQwen3VL : VlmFamily::kQwen25VL;
}

/// Python's round(): halves go to the even number.
int64_t round_to(int64_t value, int64_t factor) {
  return static_cast<int64_t>(
             std::nearbyint(static_cast<double>(value) / static_cast<double>(factor))) *
         factor;
}

void check_ratio(int64_t height, int64_t width) {
  require(height > 0 && width > 0, "expected a picture, got ", height, " x ", width, " pixels");
  require(std::max(height, width) <= 200 * std::min(height, width),
          "expected sides of a ratio of at most 200, got ", height, " x ", width, " pixels");
}

/// `area` scaled down or up so that `frames` of it come within the limits.
FrameArea bounded(FrameArea area, double frames, int64_t height, int64_t width, int64_t rounded,
                  int64_t factor, int64_t min_pixels, int64_t max_pixels) {
  const double f = static_cast<double>(factor),
               volume = frames * static_cast<double>(height * width);
  const auto down = [&](int64_t side, double beta) {
    const double cells = std::floor(static_cast<double>(side) / beta / f);
    return std::max<int64_t>(factor, static_cast<int64_t>(cells) * factor);
  };
  const auto up = [&](int64_t side, double beta) {
    return static_cast<int64_t>(std::ceil(static_cast<double>(side) * beta / f)) * factor;
  };
  if (rounded > max_pixels) {
    const double beta = std::sqrt(volume / static_cast<double>(max_pixels));
    area = {down(height, beta), down(width, beta)};
  } else if (rounded < min_pixels) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / volume);
    area = {up(height, beta), up(width, beta)};
  }
  return area;
}

}  // namespace

void PixelConfig::check(const std::string& where) {
  if (min_pixels) size.shortest_edge = *min_pixels;
  if (max_pixels) size.longest_edge = *max_pixels;
  min_pixels = max_pixels = std::nullopt;
  for (const auto& [key, value] : {std::pair<const char*, int64_t>{"patch_size", patch_size},
                                   {"temporal_patch_size", temporal_patch_size},
                                   {"merge_size", merge_size},
                                   {"size.shortest_edge", size.shortest_edge}})
    require(value > 0, where, ": ", key, ": expected a positive number, got ", value);
  require(size.longest_edge >= size.shortest_edge, where, ": size.longest_edge: expected at least ",
          size.shortest_edge, " (size.shortest_edge), got ", size.longest_edge);
  require(resample == 3, where, ": resample: expected 3 (bicubic), got ", resample);
  require(image_mean.size() == 3 && image_std.size() == 3, where,
          ": image_mean, image_std: expected three numbers each");
}

ProcessorConfig ProcessorConfig::defaults(VlmFamily family) {
  ProcessorConfig config{.family = family};
  if (family == VlmFamily::kQwen25VL) {
    config.video.size = {.shortest_edge = 128 * 28 * 28, .longest_edge = 768 * 28 * 28};
    return config;
  }
  config.image.patch_size = 16;
  config.image.size = {.shortest_edge = 256 * 256, .longest_edge = 4096 * 4096};
  config.image.image_mean = config.image.image_std = {0.5, 0.5, 0.5};
  static_cast<PixelConfig&>(config.video) = config.image;
  config.video.size = {.shortest_edge = 128 * 32 * 32, .longest_edge = 768 * 32 * 32};
  config.video.max_video_tokens = 768;
  return config;
}

ProcessorConfig ProcessorConfig::load(const fs::path& dir) {
  const Json whole = read_if_there(dir / "processor_config.json");
  const Json image = read_if_there(dir / "preprocessor_config.json");
  Json processor = image;
  processor.update(whole);
  ProcessorConfig config = defaults(family_of(dir, processor));
  const auto read = [&](const char* nested, const char* file, auto& part) {
    const bool inside = whole.contains(nested);
    const bool own = is_file(dir / file);
    const std::string name = inside ? "processor_config.json"
                             : own  ? file
                                    : "preprocessor_config.json";
    const std::string where = (dir / name).string() + (inside ? std::string(": ") + nested : "");
    read_fields(inside ? whole[nested]
                : own  ? read_json(dir / file)
                       : image,
                part, inside ? where : where + ": ", UnknownKeys::kKeep);
    part.check(where);
  };
  read("image_processor", "preprocessor_config.json", config.image);
  read("video_processor", "video_preprocessor_config.json", config.video);
  return config;
}

FrameArea smart_resize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels,
                       int64_t max_pixels) {
  check_ratio(height, width);
  const FrameArea area = {round_to(height, factor), round_to(width, factor)};
  return bounded(area, 1, height, width, area[0] * area[1], factor, min_pixels, max_pixels);
}

FrameArea smart_resize_video(int64_t frames, int64_t height, int64_t width,
                             const VideoPixelConfig& config, int64_t max_pixels) {
  const int64_t factor = config.factor();
  require(frames >= config.temporal_patch_size, "expected a video of at least ",
          config.temporal_patch_size, " frames, got ", frames);
  require(height > 0 && width > 0, "expected a video, got ", height, " x ", width, " pixels");
  if (height < factor || width < factor) {
    const double scale = std::max(static_cast<double>(factor) / static_cast<double>(height),
                                  static_cast<double>(factor) / static_cast<double>(width));
    height = static_cast<int64_t>(static_cast<double>(height) * scale);
    width = static_cast<int64_t>(static_cast<double>(width) * scale);
  }
  check_ratio(height, width);
  const FrameArea area = {round_to(height, factor), round_to(width, factor)};
  const int64_t rounded = round_to(frames, config.temporal_patch_size) * area[0] * area[1];
  return bounded(area, static_cast<double>(frames), height, width, rounded, factor,
                 config.size.shortest_edge, max_pixels);
}

FrameArea image_area(int64_t height, int64_t width, const PixelConfig& config) {
  if (config.do_resize)
    return smart_resize(height, width, config.factor(), config.size.shortest_edge,
                        config.size.longest_edge);
  require(height % config.factor() == 0 && width % config.factor() == 0,
          "do_resize is false: expected multiples of ", config.factor(), ", got ", height, " x ",
          width, " pixels");
  return {height, width};
}

FrameArea video_area(int64_t frames, int64_t height, int64_t width, const ProcessorConfig& config) {
  const VideoPixelConfig& video = config.video;
  if (!video.do_resize) return image_area(height, width, video);
  require(frames > 0, "expected a video, got no frames");
  const int64_t factor = video.factor(), least = video.size.shortest_edge;
  const auto floor_of = static_cast<int64_t>(static_cast<double>(least) * 1.05);
  int64_t most = video.size.longest_edge;
  const bool cap = video.cap_pixels_per_frame.value_or(false);
  if (config.family == VlmFamily::kQwen3VL) {
    if (cap)
      most = frames *
             std::max(std::min(video.max_video_tokens * factor * factor, most / frames), floor_of);
    return smart_resize_video(frames, height, width, video, most);
  }
  if (cap) {
    const auto total =
        static_cast<int64_t>(static_cast<double>(video.max_video_tokens * factor * factor) * 0.9);
    most = std::max(std::min(most, total * video.temporal_patch_size / frames), floor_of);
  }
  return smart_resize(height, width, factor, least, most);
}

namespace {

/// Evenly spread from the first to the last frame (NumPy's linspace, rounded).
std::vector<int64_t> spread_to_the_end(int64_t total, int64_t count) {
  std::vector<int64_t> frames(count);
  const double last = static_cast<double>(total - 1);
  const double step = count > 1 ? last / static_cast<double>(count - 1) : 0;
  for (int64_t i = 0; i < count; ++i) {
    const double at = i > 0 && i == count - 1 ? last : static_cast<double>(i) * step;
    frames[i] = static_cast<int64_t>(std::nearbyint(at));
  }
  return frames;
}

/// Every total / count frames from the first on (torch's arange in float32, cut).
std::vector<int64_t> spread_by_step(int64_t total, double count) {
  const Tensor at = torch::arange(0, total, static_cast<double>(total) / count, torch::kFloat32);
  const Tensor frames = at.to(torch::kInt32).to(torch::kInt64).contiguous();
  return {frames.data_ptr<int64_t>(), frames.data_ptr<int64_t>() + frames.numel()};
}

}  // namespace

std::vector<int64_t> sample_frames(int64_t total, double fps, const ProcessorConfig& config) {
  const VideoPixelConfig& video = config.video;
  require(total > 0, "expected a video, got no frames");
  if (!video.do_sample_frames ||
      (!video.fps && !video.num_frames && config.family == VlmFamily::kQwen25VL))
    return spread_to_the_end(total, total);
  require(video.num_frames || !video.fps || fps > 0, "expected a video's frames per second, got ",
          fps);
  const double wanted =
      video.fps ? static_cast<double>(total) / fps * *video.fps : static_cast<double>(total);
  const auto clamp = [&](double count, int64_t most) {
    const double low = std::max(count, static_cast<double>(video.min_frames));
    return std::min({low, static_cast<double>(most), static_cast<double>(total)});
  };
  if (config.family == VlmFamily::kQwen3VL) {
    const int64_t count = video.num_frames.value_or(
        static_cast<int64_t>(clamp(std::trunc(wanted), video.max_frames)));
    require(count > 0, "num_frames: expected a positive number, got ", count);
    return spread_to_the_end(total, count);
  }
  const int64_t group = video.temporal_patch_size;
  int64_t count = 0;
  if (video.num_frames) {
    count = round_to(*video.num_frames, group);
  } else {
    const int64_t most = std::min(video.max_frames, total) / group * group;
    count =
        static_cast<int64_t>(std::floor(clamp(wanted, most) / static_cast<double>(group))) * group;
  }
  require(count > 0 && count <= total, "expected a video of at least ", std::max(count, group),
          " frames, got ", total, " (lower fps, num_frames or min_frames)");
  return spread_by_step(total, static_cast<double>(count));
}

}  // namespace cosmos::modules
