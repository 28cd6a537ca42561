#pragma once

#include "ops/channel_norm/channel_norm.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct ChannelNormShape {
  const char* what;
  std::vector<int64_t> x;
  enum Layout { kPlanes, kRows, kStrided } layout = kPlanes;
  bool activation = true;
  bool gradcheck = false;
  bool benchmark = false;
  double eps = 1e-12;
};

inline at::Tensor channels_leaf(const ChannelNormShape& s) {
  if (s.layout == ChannelNormShape::kPlanes) return leaf(s.x);
  if (s.layout == ChannelNormShape::kStrided) return strided_leaf(s.x);
  std::vector<int64_t> rows = s.x;
  rows.erase(rows.begin() + 1);
  rows.push_back(s.x[1]);
  return at::randn(rows, at::kDouble).movedim(-1, 1).requires_grad_();
}

inline std::vector<OpCase> channel_norm_cases() {
  using Shape = ChannelNormShape;
  constexpr auto kPlanes = Shape::kPlanes, kRows = Shape::kRows, kStrided = Shape::kStrided;
  const std::vector<Shape> shapes = {
      {"one element", {1, 1}, kPlanes, true, true, false, 3},
      {"rows of a matrix", {5, 7}, kPlanes, true, true},
      {"an image", {2, 3, 3, 5}, kPlanes, true, true},
      {"an image, channels-last", {2, 3, 3, 5}, kRows, true, true},
      {"a clip without activation", {1, 5, 2, 1, 3}, kPlanes, false, true},
      {"a clip without activation, channels-last", {1, 5, 2, 1, 3}, kRows, false, true},
      {"norms below eps", {2, 8, 3, 5}, kPlanes, true, true, false, 3},
      {"norms below eps, channels-last", {2, 8, 3, 5}, kRows, true, true, false, 3},
      // Above eps the gradient of one channel is zero, and its float32 value rounding alone.
      {"one channel", {2, 1, 3, 50}, kPlanes, true, false, false, 3},
      {"one pixel", {2, 24, 1, 1, 1}},
      {"strided", {2, 6, 3, 8}, kStrided},
      {"tiles and a rest", {1, 16, 5, 13, 28}},
      {"rows and a rest", {1, 96, 3, 7, 9}, kRows},
      {"many channels", {1, 1030, 3, 4}},
      {"many channels, channels-last", {1, 1030, 3, 4}, kRows},
      {"seven dimensions", {1, 6, 1, 2, 3, 2, 8}},
      {"empty batch", {0, 6, 3, 4}},
      {"no pixels, channels-last", {2, 6, 0, 4}, kRows},
      {"wan 96", {1, 96, 9, 96, 224}, kPlanes, true, false, true},
      {"wan 96, channels-last", {1, 96, 9, 96, 224}, kRows, true, false, true},
      {"wan 384", {1, 384, 5, 24, 56}, kPlanes, true, false, true},
      {"wan 384, channels-last", {1, 384, 5, 24, 56}, kRows, true, false, true},
  };
  std::vector<OpCase> cases;
  for (const Shape& s : shapes)
    cases.push_back({std::string("rms_norm_silu: ") + s.what,
                     [s] {
                       return std::vector<at::Tensor>{channels_leaf(s), leaf({s.x[1]})};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::rms_norm_silu(t[0], t[1], s.eps, s.activation)};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::rms_norm_silu(t[0], t[1], s.eps, s.activation)};
                     },
                     2, 3, s.benchmark, s.gradcheck});
  return cases;
}

}  // namespace cosmos::test
