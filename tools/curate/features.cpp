#include "tools/curate/features.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>

namespace cosmos::curate {
namespace {

constexpr int kHashSide = 32, kHashKept = 8;
constexpr int64_t kPatch = 256;

// OpenCV's 8-bit HSV: hue in halves of a degree.
std::array<uint8_t, 3> to_hsv(int r, int g, int b) {
  const int value = std::max({r, g, b}), range = value - std::min({r, g, b});
  if (range == 0) return {0, 0, static_cast<uint8_t>(value)};
  const float scale = 30.0f / static_cast<float>(range);
  float hue = value == r   ? static_cast<float>(g - b) * scale
              : value == g ? 60 + static_cast<float>(b - r) * scale
                           : 120 + static_cast<float>(r - g) * scale;
  if (hue < 0) hue += 180;
  const float saturation = 255.0f * static_cast<float>(range) / static_cast<float>(value);
  return {static_cast<uint8_t>(std::lround(hue) % 180),
          static_cast<uint8_t>(std::lround(saturation)), static_cast<uint8_t>(value)};
}

double mean_change(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  if (a.size() != b.size() || a.empty()) return 0;
  int64_t sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return static_cast<double>(sum) / static_cast<double>(a.size());
}

double laplacian_variance(const std::vector<uint8_t>& luma, int64_t H, int64_t W) {
  double sum = 0, squares = 0;
  const int64_t count = (H - 2) * (W - 2);
  if (H < 3 || W < 3) return 0;
  for (int64_t y = 1; y + 1 < H; ++y)
    for (int64_t x = 1; x + 1 < W; ++x) {
      const uint8_t* p = luma.data() + y * W + x;
      const int value = p[-1] + p[1] + p[-W] + p[W] - 4 * p[0];
      sum += value;
      squares += static_cast<double>(value) * value;
    }
  const double mean = sum / static_cast<double>(count);
  return squares / static_cast<double>(count) - mean * mean;
}

// Means over a 32 x 32 grid.
std::array<float, kHashSide * kHashSide> shrink(const std::vector<uint8_t>& luma, int64_t H,
                                                int64_t W) {
  std::array<float, kHashSide * kHashSide> small{};
  for (int64_t i = 0; i < kHashSide; ++i)
    for (int64_t j = 0; j < kHashSide; ++j) {
      const int64_t y0 = i * H / kHashSide, y1 = std::max(y0 + 1, (i + 1) * H / kHashSide);
      const int64_t x0 = j * W / kHashSide, x1 = std::max(x0 + 1, (j + 1) * W / kHashSide);
      int64_t sum = 0;
      for (int64_t y = y0; y < y1; ++y)
        for (int64_t x = x0; x < x1; ++x) sum += luma[static_cast<std::size_t>(y * W + x)];
      small[static_cast<std::size_t>(i * kHashSide + j)] =
          static_cast<float>(sum) / static_cast<float>((y1 - y0) * (x1 - x0));
    }
  return small;
}

uint64_t perceptual_hash(const std::vector<uint8_t>& luma, int64_t H, int64_t W) {
  static const auto kBasis = [] {
    std::array<std::array<float, kHashSide>, kHashKept> basis{};
    for (std::size_t k = 0; k < kHashKept; ++k)
      for (std::size_t n = 0; n < kHashSide; ++n)
        basis[k][n] = static_cast<float>(std::cos(
            M_PI * static_cast<double>(k) * (2 * static_cast<double>(n) + 1) / (2 * kHashSide)));
    return basis;
  }();
  const auto small = shrink(luma, H, W);
  std::array<float, kHashKept * kHashKept> low{};
  for (std::size_t u = 0; u < kHashKept; ++u) {
    std::array<float, kHashSide> row{};
    for (std::size_t y = 0; y < kHashSide; ++y)
      for (std::size_t x = 0; x < kHashSide; ++x) row[x] += kBasis[u][y] * small[y * kHashSide + x];
    for (std::size_t v = 0; v < kHashKept; ++v)
      for (std::size_t x = 0; x < kHashSide; ++x) low[u * kHashKept + v] += row[x] * kBasis[v][x];
  }
  low[0] = 0;  // brightness alone
  auto sorted = low;
  std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
  uint64_t hash = 0;
  for (std::size_t i = 0; i < low.size(); ++i)
    hash |= static_cast<uint64_t>(low[i] > sorted[sorted.size() / 2]) << i;
  return hash;
}

}  // namespace

void FeatureMeter::measure_motion(const trainer::ScannedFrame& frame,
                                  FrameFeatures& features) const {
  if (!frame.predicted || frame.motion.empty()) return;
  const int64_t rows = (height_ + kPatch - 1) / kPatch, columns = (width_ + kPatch - 1) / kPatch;
  const auto pixels = static_cast<float>(height_ * width_),
             sides = static_cast<float>(height_ + width_);
  std::vector<float> sums(static_cast<std::size_t>(rows * columns));
  for (const trainer::MotionVector& v : frame.motion) {
    const int64_t row = std::clamp<int64_t>(static_cast<int64_t>(v.y) / kPatch, 0, rows - 1);
    const int64_t column = std::clamp<int64_t>(static_cast<int64_t>(v.x) / kPatch, 0, columns - 1);
    sums[static_cast<std::size_t>(row * columns + column)] +=
        std::hypot(v.dx, v.dy) * v.width * v.height;
  }
  for (const float sum : sums) features.motion += sum / (pixels * sides);
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t h = std::min(kPatch, height_ - i / columns * kPatch);
    const int64_t w = std::min(kPatch, width_ - i % columns * kPatch);
    sums[static_cast<std::size_t>(i)] /= static_cast<float>(h * w) * sides;
  }
  features.patch_motion = std::move(sums);
}

FrameFeatures FeatureMeter::measure(const trainer::ScannedFrame& frame) {
  const Tensor& image = frame.images.at(0);
  const int64_t H = image.size(0), W = image.size(1), pixels = H * W;
  const uint8_t* rgb = image.data_ptr<uint8_t>();
  hsv_.resize(static_cast<std::size_t>(3 * pixels));
  luma_.resize(static_cast<std::size_t>(pixels));
  int64_t dark = 0;
  for (int64_t i = 0; i < pixels; ++i) {
    const int r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2];
    const auto hsv = to_hsv(r, g, b);
    std::copy(hsv.begin(), hsv.end(), hsv_.begin() + 3 * i);
    const int luma = (299 * r + 587 * g + 114 * b + 500) / 1000;
    luma_[static_cast<std::size_t>(i)] = static_cast<uint8_t>(luma);
    dark += luma < 26;
  }
  FrameFeatures features;
  features.dark = static_cast<float>(dark) / static_cast<float>(pixels);
  features.change = static_cast<float>(mean_change(luma_, last_luma_));
  features.content = static_cast<float>(mean_change(hsv_, last_hsv_));
  features.sharpness = static_cast<float>(laplacian_variance(luma_, H, W));
  features.hash = perceptual_hash(luma_, H, W);
  measure_motion(frame, features);
  hsv_.swap(last_hsv_);
  luma_.swap(last_luma_);
  return features;
}

trainer::FrameSize analysis_size(const trainer::VideoInfo& info) {
  const double scale = std::min(1.0, 256.0 / static_cast<double>(info.width));
  const auto scaled = [&](int64_t side) {
    return std::max<int64_t>(1, std::llround(static_cast<double>(side) * scale));
  };
  return {.height = std::min<int64_t>(scaled(info.height), 1024),
          .width = scaled(info.width),
          .fit = trainer::Fit::kStretch};
}

double hash_distance(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  if (a.size() != b.size() || a.empty()) return 64;
  int bits = 0;
  for (std::size_t i = 0; i < a.size(); ++i) bits += std::popcount(a[i] ^ b[i]);
  return static_cast<double>(bits) / static_cast<double>(a.size());
}

}  // namespace cosmos::curate
