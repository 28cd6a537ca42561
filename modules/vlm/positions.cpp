#include "modules/vlm/positions.h"

#include <algorithm>

namespace cosmos::modules {
namespace {

struct Axes {
  std::vector<int64_t> time, height, width;

  void add(int64_t t, int64_t h, int64_t w) {
    time.push_back(t);
    height.push_back(h);
    width.push_back(w);
  }
};

void add_grid(Axes& axes, const Grid& grid, int64_t merge, int64_t start, double interval) {
  for (int64_t t = 0; t < grid[0]; ++t) {
    const auto time =
        static_cast<int64_t>(static_cast<float>(t) * static_cast<float>(interval)) + start;
    for (int64_t h = 0; h < grid[1] / merge; ++h)
      for (int64_t w = 0; w < grid[2] / merge; ++w) axes.add(time, start + h, start + w);
  }
}

}  // namespace

Grids split_frames(const Grids& grids) {
  Grids frames;
  for (const Grid& grid : grids)
    for (int64_t t = 0; t < grid[0]; ++t) frames.push_back({1, grid[1], grid[2]});
  return frames;
}

Tensor sequence_positions(const std::vector<int64_t>& token_types, int64_t merge,
                          PositionGrids& grids) {
  Axes axes;
  int64_t position = 0;
  for (std::size_t begin = 0; begin < token_types.size();) {
    const int64_t type = token_types[begin];
    auto end = begin;
    while (end < token_types.size() && token_types[end] == type) ++end;
    const auto count = static_cast<int64_t>(end - begin);
    begin = end;
    if (type == kTextToken) {
      for (int64_t i = 0; i < count; ++i, ++position) axes.add(position, position, position);
      continue;
    }
    const bool image = type == kImageToken;
    auto& next = image ? grids.next_image : grids.next_video;
    const Grids& known = image ? grids.images : grids.videos;
    const char* name = image ? "image_grid_thw" : "video_grid_thw";
    require(next < known.size(), name, ": ", known.size(),
            " grids (frames count one each in Qwen3-VL), but input_ids has more ",
            image ? "images" : "videos");
    const Grid& grid = known[next];
    const int64_t tokens = patches(grid) / (merge * merge);
    require(tokens == count, name, ": grid ", next, " gives ", tokens,
            " tokens, its stretch of input_ids has ", count);
    const bool spaced = !image && next < grids.video_interval.size();
    add_grid(axes, grid, merge, position, spaced ? grids.video_interval[next] : 1.0);
    position += std::max(grid[1], grid[2]) / merge;
    ++next;
  }
  const auto row = [](const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kInt64);
  };
  return torch::stack({row(axes.time), row(axes.height), row(axes.width)});
}

}  // namespace cosmos::modules
