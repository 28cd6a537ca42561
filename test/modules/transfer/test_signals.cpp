// Edges and blur against OpenCV's recorded answers, and their edges.

#include <catch2/catch.hpp>

#include "modules/hub/safetensors.h"
#include "modules/transfer/signals.h"

namespace cosmos::modules {
namespace {

// The formula of test/reference/signal_golden.py.
Tensor picture(int64_t height, int64_t width) {
  const auto f64 = torch::kFloat64;
  const Tensor y = torch::arange(height, f64).view({-1, 1, 1});
  const Tensor x = torch::arange(width, f64).view({1, -1, 1});
  const Tensor c = torch::arange(3, f64).view({1, 1, -1});
  const Tensor tiles = (torch::floor(x / 9) + torch::floor(y / 7)).remainder(2);
  const Tensor value = 110 + 55 * torch::sin(0.21 * x + 0.05 * y + c) +
                       40 * torch::sin(0.13 * y - 0.31 * x * c) + 45 * tiles;
  return value.round().clamp(0, 255).to(torch::kUInt8).unsqueeze(0).contiguous();
}

Tensor unpack(const Tensor& bits, int64_t count) {
  const Tensor shifts = torch::arange(7, -1, -1, torch::kUInt8);
  return bits.unsqueeze(1).bitwise_right_shift(shifts).bitwise_and(1).flatten().narrow(0, 0, count);
}

int64_t largest_difference(const Tensor& a, const Tensor& b) {
  return (a.to(torch::kInt64) - b.to(torch::kInt64)).abs().max().item<int64_t>();
}

}  // namespace

TEST_CASE("edges are OpenCV's, pixel for pixel", "[transfer][signals]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/signals.safetensors");
  const Tensor frames = picture(45, 61).expand({2, 45, 61, 3});
  for (const auto strength : {Strength::kVeryLow, Strength::kLow, Strength::kMedium,
                              Strength::kHigh, Strength::kVeryHigh}) {
    const EdgeThresholds t = edge_thresholds(strength);
    const std::string name = "edges." + std::to_string(t.low) + "." + std::to_string(t.high);
    INFO(name);
    const Tensor edges = canny_edges(frames, t);
    const Tensor want = unpack(golden.get(name), 45 * 61).view({45, 61}) * 255;
    CHECK(edges.sizes() == frames.sizes());
    CHECK((edges[0].select(2, 0) != want).sum().item<int64_t>() == 0);
    CHECK(edges[1].equal(edges[0]));
    CHECK(edges[0].select(2, 2).equal(edges[0].select(2, 0)));
  }
}

TEST_CASE("the blur's filters are OpenCV's to one level", "[transfer][signals]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/signals.safetensors");
  const Tensor frames = picture(33, 40);
  const auto filter = [&](bool bilateral) {
    return blur(frames, {.shrink = 1, .bilateral = bilateral, .resample = 1})[0];
  };
  CHECK(largest_difference(filter(true), golden.get("bilateral")) <= 1);
  CHECK(largest_difference(filter(false), golden.get("gaussian")) <= 1);
}

TEST_CASE("blur keeps a flat picture and takes detail away", "[transfer][signals]") {
  const Tensor flat = torch::full({1, 20, 33, 3}, 77, torch::kUInt8);
  const Tensor detailed = picture(20, 33);
  for (const auto strength : {Strength::kVeryLow, Strength::kMedium, Strength::kVeryHigh}) {
    CHECK(largest_difference(blur(flat, blur_options(strength)), flat) == 0);
    const Tensor soft = blur(detailed, blur_options(strength));
    CHECK(soft.to(torch::kFloat32).std().item<double>() <
          0.8 * detailed.to(torch::kFloat32).std().item<double>());
  }
  CHECK(canny_edges(flat, {0, 0}).max().item<int64_t>() == 0);
  CHECK(canny_edges(picture(1, 1), {20, 50}).max().item<int64_t>() == 0);
}

TEST_CASE("signals refuse what they cannot use", "[transfer][signals]") {
  CHECK_THROWS_WITH(strength_from("lowest", "--edge"),
                    Catch::Contains("--edge: expected very_low") && Catch::Contains("lowest"));
  CHECK_THROWS_WITH(canny_edges(torch::zeros({1, 4, 4, 3}), {1, 2}), Catch::Contains("uint8"));
  CHECK_THROWS_WITH(canny_edges(picture(4, 4), {3, 2}), Catch::Contains("low <= high"));
}

}  // namespace cosmos::modules
