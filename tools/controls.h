#pragma once

// The control options of cosmos-generate: files to control signals, read piece by piece.
//
//   --control NAME[=FILE][:WEIGHT][@MASK]
//
// FILE and MASK are videos or pictures (a picture holds for every frame). MASK may also be numbers
// from 0 to 1 with commas between, the weights of frames spread evenly over the clip (1,0: from 1
// at the first frame down to 0 at the last). Without FILE, edge and blur (vis) are computed from
// the clip of --control-from.

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string>
#include <vector>

#include "modules/pipeline/control.h"
#include "modules/transfer/signals.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"

namespace cosmos::tools {

struct ControlArgument {
  std::string name, file, mask;
  double weight = 1;
};

/// NAME[=FILE][:WEIGHT][@MASK]. The last colon counts when a number follows it.
inline ControlArgument parse_control(const std::string& text) {
  ControlArgument control;
  std::string rest = text;
  if (const auto at = rest.rfind('@'); at != std::string::npos) {
    control.mask = rest.substr(at + 1);
    rest.resize(at);
    require(!control.mask.empty(), "--control ", text, ": expected a file after @");
  }
  if (const auto colon = rest.rfind(':'); colon != std::string::npos) {
    const std::string number = rest.substr(colon + 1);
    const char* end = number.data() + number.size();
    if (const auto [stop, error] = std::from_chars(number.data(), end, control.weight);
        error == std::errc() && stop == end)
      rest.resize(colon);
  }
  const auto equal = rest.find('=');
  control.name = rest.substr(0, equal);
  if (equal != std::string::npos) control.file = rest.substr(equal + 1);
  require(!control.name.empty() && control.name.find(':') == std::string::npos, "--control ", text,
          ": expected NAME[=FILE][:WEIGHT][@MASK], as in edge=edges.mp4:0.8");
  return control;
}

/// Numbers separated by commas.
inline std::vector<double> parse_numbers(const std::string& text, const std::string& where) {
  std::vector<double> weights;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    double weight = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, weight);
    require(error == std::errc() && stop == text.data() + end, where,
            ": expected numbers separated by commas, got ", text);
    weights.push_back(weight);
    begin = end + 1;
  }
  return weights;
}

/// A number, or as many as there are control blocks.
inline std::vector<double> parse_weights(const std::string& text) {
  return parse_numbers(text, "--control-weight");
}

/// Whether a mask is the weights of frames, not a file's name.
inline bool is_number_list(const std::string& mask) {
  return mask.find_first_not_of("0123456789.,") == std::string::npos;
}

/// Weights over a clip of `length` frames, linear between `numbers`, as a mask's frames.
inline modules::FrameSource frame_weights(const std::vector<double>& numbers, int64_t length,
                                          const trainer::FrameSize& size) {
  return [=](int64_t first, int64_t count) {
    const double last = static_cast<double>(numbers.size() - 1);
    Tensor weights = torch::empty({count});
    for (int64_t i = 0; i < count; ++i) {
      const auto frame = static_cast<double>(first + i);
      const double place = length > 1 ? frame / static_cast<double>(length - 1) * last : 0;
      const auto low = std::min(static_cast<std::size_t>(place), numbers.size() - 1);
      const std::size_t high = std::min(low + 1, numbers.size() - 1);
      weights[i] =
          numbers[low] + (place - static_cast<double>(low)) * (numbers[high] - numbers[low]);
    }
    return weights.view({1, 1, count, 1, 1}).expand({1, 1, count, size.height, size.width});
  };
}

/// A file's frames as uint8 [n, H, W, 3], any part of them.
struct Footage {
  std::function<Tensor(int64_t first, int64_t count)> frames;
  int64_t length = 0;
};

inline bool is_picture(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), ::tolower);
  return ending == ".png" || ending == ".jpg" || ending == ".jpeg" || ending == ".webp" ||
         ending == ".bmp";
}

/// A video from frame `start` on. fps 0: every frame of it as it is. A picture has `picture_length`
/// frames.
inline Footage open_footage(const std::filesystem::path& path, double fps,
                            const trainer::FrameSize& size, int64_t start, int64_t picture_length) {
  if (is_picture(path)) {
    const Tensor image = trainer::read_image(path, size);
    return {[image](int64_t, int64_t count) {
              return image.unsqueeze(0).expand({count, -1, -1, -1}).contiguous();
            },
            picture_length};
  }
  const auto info = trainer::probe_video(path);
  const auto length = static_cast<int64_t>(trainer::timeline(info, fps).size());
  require(start >= 0 && start < length, path.string(), ": frame ", start,
          " is the first to be read, the video has ", length);
  return {[path, info, fps, size, start](int64_t first, int64_t count) {
            return trainer::read_video(
                path, info, {.first = start + first, .frames = count, .fps = fps, .size = size});
          },
          length - start};
}

/// [n, H, W, 3] -> [1, 3, n, H, W] in [-1, 1]
inline Tensor as_clip(const Tensor& frames) {
  return trainer::from_frames(frames.contiguous()).unsqueeze(0);
}

/// A picture lasts as long as the longest video beside it.
constexpr int64_t kPictureLength = int64_t{1} << 40;

struct ControlOptions {
  std::string from;  ///< RGB clip for edge and blur
  modules::Strength strength = modules::Strength::kMedium;
  double fps = 0;
  trainer::FrameSize size;
  int64_t start = 0;                ///< first frame of the control clips to read
  int64_t length = kPictureLength;  ///< frames of the clip to make; more than there are: all
};

inline modules::ControlSignal open_control(const ControlArgument& argument,
                                           const ControlOptions& options) {
  modules::ControlSignal signal{.weight = argument.weight};
  if (!argument.file.empty()) {
    const Footage footage =
        open_footage(argument.file, options.fps, options.size, options.start, kPictureLength);
    signal.length = footage.length;
    signal.frames = [footage](int64_t first, int64_t count) {
      return as_clip(footage.frames(first, count));
    };
  } else {
    const bool edge = argument.name == "edge";
    require(edge || argument.name == "blur" || argument.name == "vis", "--control ", argument.name,
            ": expected ", argument.name, "=FILE; only edge and blur are made from a clip");
    require(!options.from.empty(), "--control ", argument.name, ": expected ", argument.name,
            "=FILE, or the clip to make it from with --control-from");
    const Footage footage =
        open_footage(options.from, options.fps, options.size, options.start, kPictureLength);
    signal.length = footage.length;
    signal.frames = [footage, edge, strength = options.strength](int64_t first, int64_t count) {
      const Tensor rgb = footage.frames(first, count);
      return as_clip(edge ? canny_edges(rgb, modules::edge_thresholds(strength))
                          : modules::blur(rgb, modules::blur_options(strength)));
    };
  }
  if (argument.mask.empty()) return signal;
  if (is_number_list(argument.mask)) {
    const auto numbers = parse_numbers(argument.mask, "--control " + argument.name);
    for (const double number : numbers)
      require(number >= 0 && number <= 1, "--control ", argument.name,
              ": expected weights of frames from 0 to 1, got ", argument.mask);
    const int64_t length = std::min(signal.length, options.length);
    signal.mask = frame_weights(numbers, length, options.size);
    return signal;
  }
  const Footage mask =
      open_footage(argument.mask, options.fps, options.size, options.start, kPictureLength);
  signal.length = std::min(signal.length, mask.length);
  signal.mask = [mask](int64_t first, int64_t count) {  // the mean of its channels
    return mask.frames(first, count).to(torch::kFloat32).mean(3).div(255).unsqueeze(0).unsqueeze(0);
  };
  return signal;
}

}  // namespace cosmos::tools
