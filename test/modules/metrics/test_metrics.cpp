// Metrics against what can be counted by hand, and against plain loops.

#include <catch2/catch.hpp>
#include <cmath>

#include "modules/metrics/control.h"
#include "modules/metrics/frames.h"
#include "modules/metrics/sampson.h"

using namespace cosmos;
using namespace cosmos::modules;

namespace {

// SSIM as its paper writes it: one window at a time.
double plain_ssim(const Tensor& a, const Tensor& b) {
  const auto x = a.accessor<double, 2>(), y = b.accessor<double, 2>();
  double weights[11][11], total = 0;
  for (int i = 0; i < 11; ++i)
    for (int j = 0; j < 11; ++j)
      total += weights[i][j] = std::exp(-((i - 5) * (i - 5) + (j - 5) * (j - 5)) / 4.5);
  double sum = 0;
  int count = 0;
  for (int r = 0; r + 11 <= a.size(0); ++r)
    for (int c = 0; c + 11 <= a.size(1); ++c, ++count) {
      double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
      for (int i = 0; i < 11; ++i)
        for (int j = 0; j < 11; ++j) {
          const double w = weights[i][j] / total, p = x[r + i][c + j], q = y[r + i][c + j];
          mx += w * p, my += w * q, xx += w * p * p, yy += w * q * q, xy += w * p * q;
        }
      sum += (2 * mx * my + 1e-4) * (2 * (xy - mx * my) + 9e-4) /
             ((mx * mx + my * my + 1e-4) * (xx - mx * mx + yy - my * my + 9e-4));
    }
  return sum / count;
}

// A scene of points in space seen from two places.
Matches two_views(int64_t count) {
  torch::manual_seed(4);
  const Tensor space = torch::rand({count, 3}, torch::kFloat64) * torch::tensor({4.0, 3.0, 3.0}) +
                       torch::tensor({-2.0, -1.5, 4.0});
  const double turn = 0.05;
  const Tensor rotation = torch::tensor({{std::cos(turn), 0.0, std::sin(turn)},
                                         {0.0, 1.0, 0.0},
                                         {-std::sin(turn), 0.0, std::cos(turn)}});
  const auto seen = [](const Tensor& x) {
    return x.slice(1, 0, 2) / x.slice(1, 2, 3) * 200 + torch::tensor({160.0, 120.0});
  };
  const Tensor moved =
      torch::matmul(space, rotation.to(torch::kFloat64).t()) + torch::tensor({0.3, 0.05, 0.1});
  return {seen(space).to(torch::kFloat64), seen(moved).to(torch::kFloat64)};
}

}  // namespace

TEST_CASE("PSNR and SSIM", "[metrics]") {
  torch::manual_seed(1);
  const Tensor a = torch::rand({2, 3, 14, 17}, torch::kFloat64);
  CHECK(psnr(a, a + 0.1)[1].item<double>() == Approx(20));
  CHECK(std::isinf(psnr(a, a)[0].item<double>()));
  CHECK(ssim(a, a)[0].item<double>() == Approx(1));
  const Tensor b = (a + 0.2 * torch::randn_like(a)).clamp(0, 1);
  double mean = 0;
  for (int c = 0; c < 3; ++c) mean += plain_ssim(a[1][c].contiguous(), b[1][c].contiguous()) / 3;
  CHECK(ssim(a, b)[1].item<double>() == Approx(mean).epsilon(1e-9));
  CHECK_THROWS_AS(psnr(a, a.slice(3, 1)), Error);
  CHECK_THROWS_AS(ssim(a.slice(2, 0, 5), a.slice(2, 0, 5)), Error);
}

TEST_CASE("Canny F1 and blur SSIM", "[metrics]") {
  torch::manual_seed(6);
  const std::vector<int64_t> size = {24, 40};
  const auto scene = [&] {  // smooth, with edges that cross it
    return torch::upsample_bilinear2d(torch::rand({2, 3, 4, 6}), size, false).clamp(0, 1);
  };
  const Tensor a = scene(), b = 0.6 * a + 0.4 * scene();
  const EdgeThresholds weak = edge_thresholds(Strength::kVeryLow);
  const auto bytes = [](const Tensor& x) {
    return (x * 255).round().to(torch::kUInt8).permute({0, 2, 3, 1}).contiguous();
  };
  const Tensor f1 = canny_f1(a, b, weak), similar = blur_ssim(a, b);
  const Tensor edges_a = canny_edges(bytes(a), weak), edges_b = canny_edges(bytes(b), weak);
  const BlurOptions medium = blur_options(Strength::kMedium);
  const auto planes = [&](const Tensor& x) {
    return blur(bytes(x), medium).permute({0, 3, 1, 2}).to(torch::kFloat64) / 255;
  };
  const Tensor blurred_a = planes(a), blurred_b = planes(b);
  for (int64_t t = 0; t < 2; ++t) {
    double both = 0, ours = 0, theirs = 0;
    for (int64_t y = 0; y < size[0]; ++y)
      for (int64_t x = 0; x < size[1]; ++x) {
        const bool in_a = edges_a[t][y][x][0].item<int>() > 0;
        const bool in_b = edges_b[t][y][x][0].item<int>() > 0;
        both += in_a && in_b, ours += in_a, theirs += in_b;
      }
    REQUIRE(both > 0);
    const double precision = both / ours, recall = both / theirs;
    CHECK(f1[t].item<double>() ==
          Approx(2 * precision * recall / (precision + recall)).epsilon(1e-12));
    double sum = 0;
    for (int64_t c = 0; c < 3; ++c) sum += plain_ssim(blurred_a[t][c], blurred_b[t][c]);
    CHECK(similar[t].item<double>() == Approx(sum / 3).epsilon(1e-9));
  }
  CHECK(canny_f1(a, a, weak).min().item<double>() == 1);
  CHECK(blur_ssim(a, a).min().item<double>() == Approx(1));
  CHECK(f1.max().item<double>() < 1);
}

TEST_CASE("F1 of edges, IoU of labels", "[metrics]") {
  const Tensor a = torch::tensor({{1, 1, 0}, {0, 0, 0}}).view({2, 1, 3});
  const Tensor b = torch::tensor({{1, 0, 1}, {0, 0, 0}}).view({2, 1, 3});
  CHECK(f1_score(a, b)[0].item<double>() == Approx(0.5));
  CHECK(f1_score(a, b)[1].item<double>() == 1);
  const Tensor x = torch::tensor({0, 0, 1, 2}).view({1, 2, 2}),
               y = torch::tensor({0, 1, 1, 1}).view({1, 2, 2});
  CHECK(mean_iou(x, y)[0].item<double>() == Approx((0.5 + 1.0 / 3 + 0) / 3));
  const Tensor red = torch::tensor({1.0, 0.0, 0.0}).view({1, 3, 1, 1});
  CHECK(colour_labels(red).equal(colour_labels(red * 0.97 + 0.02)));
  CHECK(!colour_labels(red).equal(colour_labels(red.flip(1))));
}

TEST_CASE("Depth is judged up to one factor a frame", "[metrics]") {
  torch::manual_seed(2);
  const Tensor depth = torch::rand({2, 5, 6}, torch::kFloat64) + 0.5;
  CHECK(scale_invariant_rmse(depth * 7, depth).abs().max().item<double>() < 1e-12);
  Tensor half = depth.clone();
  half.slice(2, 0, 3).mul_(std::exp(0.4));  // half the pixels off by 0.4 in the logarithm
  CHECK(scale_invariant_rmse(half, depth)[0].item<double>() == Approx(0.2));
  half[0][0][0] = 0;  // no depth there
  CHECK(std::isfinite(scale_invariant_rmse(half, depth)[0].item<double>()));
}

TEST_CASE("A rigid scene has no Sampson error, a torn one does", "[metrics]") {
  const Matches matches = two_views(60);
  const Tensor f = fundamental_matrix(matches);
  CHECK(sampson_distance(matches, f).max().item<double>() < 1e-6);
  CHECK(std::get<1>(torch::linalg_svd(f))[2].item<double>() < 1e-9);
  CHECK(sampson_error(matches, 1) < 1e-6);
  // One point of eight in the wrong place: RANSAC leaves them out.
  Matches torn{matches.from, matches.to.clone()};
  torn.to.slice(0, 0, 60, 8).add_(torch::tensor({9.0, -14.0}));
  CHECK(sampson_error(torn, 1) > 0.05);
  CHECK(sampson_error(torn, 1) == sampson_error(torn, 1));
  CHECK(std::isnan(sampson_error({matches.from.slice(0, 0, 9), matches.to.slice(0, 0, 9)}, 1)));
}

TEST_CASE("Points are followed from frame to frame to part of a pixel", "[metrics]") {
  torch::manual_seed(3);
  const Tensor coarse = torch::rand({1, 1, 20, 26}, torch::kFloat64);
  const std::vector<int64_t> size = {160, 208};
  const Tensor wide = torch::upsample_bicubic2d(coarse, size, /*align_corners=*/false)[0][0];
  const Tensor from = wide.slice(0, 8, 136).slice(1, 8, 184);
  const Tensor to = wide.slice(0, 5, 133).slice(1, 12, 188);  // 3 down, 4 to the left
  const Matches matches = match_frames(from, to);
  REQUIRE(matches.from.size(0) > 20);
  const Tensor moved = matches.to - matches.from;
  CHECK((moved - torch::tensor({-4.0, 3.0})).abs().mean().item<double>() < 0.1);
  CHECK((moved - torch::tensor({-4.0, 3.0})).abs().max().item<double>() < 0.5);
  // Nothing to follow: no matches, and no number.
  const Matches none = match_frames(torch::zeros({64, 64}), torch::zeros({64, 64}));
  CHECK(none.from.size(0) == 0);
  CHECK(std::isnan(sampson_error(none, 1)));
}
