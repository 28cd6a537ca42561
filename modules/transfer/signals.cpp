#include "modules/transfer/signals.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <vector>

namespace cosmos::modules {
namespace {

void check_frames(const Tensor& frames) {
  require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == torch::kUInt8,
          "control signal: expected uint8 frames [T, H, W, 3], got ", frames.sizes());
}

// One picture's gradients, a row and a column of zeros around the magnitudes.
struct Gradients {
  int64_t height, width;
  std::vector<int> dx, dy, magnitude;

  int& at(std::vector<int>& plane, int64_t y, int64_t x) {
    return plane[static_cast<std::size_t>((y + 1) * (width + 2) + x + 1)];
  }
};

Gradients sobel(const uint8_t* image, int64_t height, int64_t width) {
  const auto size = static_cast<std::size_t>((height + 2) * (width + 2));
  Gradients g{height, width, std::vector<int>(size), std::vector<int>(size),
              std::vector<int>(size)};
  for (int64_t y = 0; y < height; ++y) {
    const int64_t up = std::max<int64_t>(y - 1, 0), down = std::min(y + 1, height - 1);
    for (int64_t x = 0; x < width; ++x) {
      const int64_t left = std::max<int64_t>(x - 1, 0), right = std::min(x + 1, width - 1);
      int best = -1;
      for (int64_t c = 0; c < 3; ++c) {
        const auto v = [&](int64_t row, int64_t column) -> int {
          return image[(row * width + column) * 3 + c];
        };
        const int dx = v(up, right) + 2 * v(y, right) + v(down, right) - v(up, left) -
                       2 * v(y, left) - v(down, left);
        const int dy = v(down, left) + 2 * v(down, x) + v(down, right) - v(up, left) -
                       2 * v(up, x) - v(up, right);
        const int magnitude = std::abs(dx) + std::abs(dy);
        if (magnitude <= best) continue;  // of equal ones the first channel counts
        best = magnitude;
        g.at(g.dx, y, x) = dx;
        g.at(g.dy, y, x) = dy;
        g.at(g.magnitude, y, x) = magnitude;
      }
    }
  }
  return g;
}

// Whether a magnitude is the largest of the three along its gradient; of two equal neighbours the
// one further on stays out, except on diagonals, where both do.
bool is_ridge(Gradients& g, int64_t y, int64_t x) {
  constexpr int64_t kTan22 = 13573;  // tan(22.5 degrees) * 2^15
  const int m = g.at(g.magnitude, y, x);
  const int64_t dx = g.at(g.dx, y, x), dy = g.at(g.dy, y, x);
  const int64_t across = std::abs(dx) * kTan22, along = std::abs(dy) << 15;
  const auto neighbour = [&](int64_t rows, int64_t columns) {
    return g.at(g.magnitude, y + rows, x + columns);
  };
  if (along < across) return m > neighbour(0, -1) && m >= neighbour(0, 1);
  if (along > across + (std::abs(dx) << 16)) return m > neighbour(-1, 0) && m >= neighbour(1, 0);
  const int64_t slope = (dx < 0) != (dy < 0) ? -1 : 1;
  return m > neighbour(-1, -slope) && m > neighbour(1, slope);
}

void canny_frame(const uint8_t* image, uint8_t* out, int64_t height, int64_t width,
                 const EdgeThresholds& thresholds) {
  enum : uint8_t { kNone, kWeak, kEdge };
  Gradients g = sobel(image, height, width);
  std::vector<uint8_t> kind(static_cast<std::size_t>(height * width), kNone);
  std::vector<int64_t> open;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const int m = g.at(g.magnitude, y, x);
      if (m <= thresholds.low || !is_ridge(g, y, x)) continue;
      const bool strong = m > thresholds.high;
      kind[static_cast<std::size_t>(y * width + x)] = strong ? kEdge : kWeak;
      if (strong) open.push_back(y * width + x);
    }
  while (!open.empty()) {
    const int64_t y = open.back() / width, x = open.back() % width;
    open.pop_back();
    for (int64_t row = std::max<int64_t>(y - 1, 0); row <= std::min(y + 1, height - 1); ++row)
      for (int64_t column = std::max<int64_t>(x - 1, 0); column <= std::min(x + 1, width - 1);
           ++column) {
        uint8_t& near = kind[static_cast<std::size_t>(row * width + column)];
        if (near != kWeak) continue;
        near = kEdge;
        open.push_back(row * width + column);
      }
  }
  for (int64_t i = 0; i < height * width; ++i)
    std::fill_n(out + 3 * i, 3, kind[static_cast<std::size_t>(i)] == kEdge ? 255 : 0);
}

// Reflection about the border pixels: -1 is 1, n is n - 2.
int64_t reflected(int64_t i, int64_t n) {
  if (n == 1) return 0;
  const int64_t period = 2 * (n - 1), place = ((i % period) + period) % period;
  return place < n ? place : period - place;
}

// Weighted mean of the pixels within a disc; weights fall with distance and with difference.
Tensor bilateral(const Tensor& frames, int64_t diameter, double colour_deviation,
                 double pixel_deviation) {
  const auto [T, H, W, C] = dims<4>(frames, "frames");
  const int64_t radius = diameter / 2;
  std::vector<float> by_colour(3 * 255 + 1);
  for (std::size_t i = 0; i < by_colour.size(); ++i)
    by_colour[i] = static_cast<float>(
        std::exp(-0.5 * static_cast<double>(i * i) / (colour_deviation * colour_deviation)));
  struct Tap {
    int64_t dy, dx;
    float weight;
  };
  std::vector<Tap> taps;
  for (int64_t dy = -radius; dy <= radius; ++dy)
    for (int64_t dx = -radius; dx <= radius; ++dx) {
      const auto square = static_cast<double>(dy * dy + dx * dx);
      if (square <= static_cast<double>(radius * radius))
        taps.push_back(
            {dy, dx,
             static_cast<float>(std::exp(-0.5 * square / (pixel_deviation * pixel_deviation)))});
    }
  const Tensor in = frames.contiguous();
  Tensor out = torch::empty_like(in);
  const uint8_t* source = in.data_ptr<uint8_t>();
  uint8_t* target = out.data_ptr<uint8_t>();
  const int64_t height = H, width = W;
  at::parallel_for(0, T * H, 1, [&, height, width](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t y = line % height;
      const uint8_t* image = source + line / height * height * width * 3;
      for (int64_t x = 0; x < width; ++x) {
        const uint8_t* centre = image + (y * width + x) * 3;
        float sums[3] = {0, 0, 0}, total = 0;
        for (const Tap& tap : taps) {
          const uint8_t* pixel =
              image + (reflected(y + tap.dy, height) * width + reflected(x + tap.dx, width)) * 3;
          const int difference = std::abs(pixel[0] - centre[0]) + std::abs(pixel[1] - centre[1]) +
                                 std::abs(pixel[2] - centre[2]);
          const float weight = tap.weight * by_colour[static_cast<std::size_t>(difference)];
          for (int c = 0; c < 3; ++c) sums[c] += weight * static_cast<float>(pixel[c]);
          total += weight;
        }
        for (int c = 0; c < 3; ++c)
          target[(line * width + x) * 3 + c] = static_cast<uint8_t>(std::lround(sums[c] / total));
      }
    }
  });
  return out;
}

Tensor channels_first(const Tensor& frames) {
  return frames.permute({0, 3, 1, 2}).to(torch::kFloat32);
}

Tensor as_frames(const Tensor& x) {  // [T, 3, H, W] -> uint8 [T, H, W, 3]
  return x.round().clamp(0, 255).to(torch::kUInt8).permute({0, 2, 3, 1}).contiguous();
}

// Separable, borders reflected.  x: [T, 3, H, W]
Tensor gaussian(const Tensor& x, int64_t size, double deviation) {
  const Tensor place = torch::arange(size, torch::kFloat64) - (size - 1) / 2.0;
  Tensor kernel = torch::exp(-0.5 * (place / deviation).square());
  kernel = (kernel / kernel.sum()).to(torch::kFloat32);
  const auto along = [&](const Tensor& x, int64_t dim) {
    const int64_t n = x.size(dim);
    Tensor sum = torch::zeros_like(x);
    for (int64_t k = 0; k < size; ++k) {
      std::vector<int64_t> index(static_cast<std::size_t>(n));
      for (int64_t i = 0; i < n; ++i)
        index[static_cast<std::size_t>(i)] = reflected(i + k - size / 2, n);
      sum += kernel[k] * x.index_select(dim, torch::tensor(index));
    }
    return sum;
  };
  return along(along(x, 2), 3);
}

Tensor bicubic(const Tensor& x, int64_t height, int64_t width) {
  return torch::upsample_bicubic2d(x, {height, width}, /*align_corners=*/false);
}

}  // namespace

Strength strength_from(const std::string& name, const std::string& where) {
  const char* names[] = {"very_low", "low", "medium", "high", "very_high"};
  const auto* found = std::find(std::begin(names), std::end(names), name);
  require(found != std::end(names), where,
          ": expected very_low, low, medium, high or very_high, got \"", name, "\"");
  return static_cast<Strength>(found - std::begin(names));
}

EdgeThresholds edge_thresholds(Strength strength) {
  const EdgeThresholds presets[] = {{20, 50}, {50, 100}, {100, 200}, {200, 300}, {300, 400}};
  return presets[static_cast<int>(strength)];
}

BlurOptions blur_options(Strength strength) {
  const int64_t shrink[] = {1, 4, 2, 1, 4}, resample[] = {4, 4, 10, 16, 16};
  const int i = static_cast<int>(strength);
  return {.shrink = shrink[i], .resample = resample[i]};
}

Tensor canny_edges(const Tensor& frames, const EdgeThresholds& thresholds) {
  check_frames(frames);
  require(thresholds.low >= 0 && thresholds.low <= thresholds.high,
          "edges: expected thresholds 0 <= low <= high, got ", thresholds.low, " and ",
          thresholds.high);
  const auto [T, H, W, C] = dims<4>(frames, "frames");
  const Tensor in = frames.contiguous();
  Tensor out = torch::empty_like(in);
  const uint8_t* source = in.data_ptr<uint8_t>();
  uint8_t* target = out.data_ptr<uint8_t>();
  const int64_t height = H, width = W, size = H * W * 3;
  at::parallel_for(0, T, 1, [&, height, width, size](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      canny_frame(source + t * size, target + t * size, height, width, thresholds);
  });
  return out;
}

Tensor blur(const Tensor& frames, const BlurOptions& options) {
  check_frames(frames);
  require(options.shrink >= 1 && options.resample >= 1, "blur: expected factors of 1 or more, got ",
          options.shrink, " and ", options.resample);
  const auto [T, H, W, C] = dims<4>(frames, "frames");
  const auto part = [](int64_t size, int64_t factor) {
    return std::max<int64_t>(size / factor, 1);
  };
  Tensor x = frames;
  if (options.shrink > 1)
    x = as_frames(torch::adaptive_avg_pool2d(channels_first(frames),
                                             {part(H, options.shrink), part(W, options.shrink)}));
  Tensor filtered = options.bilateral ? channels_first(bilateral(x, 30, 150, 100))
                                      : gaussian(channels_first(x), 25, 12.5);
  const Tensor small = bicubic(filtered, part(H, options.resample), part(W, options.resample));
  return as_frames(bicubic(small, H, W));
}

}  // namespace cosmos::modules
