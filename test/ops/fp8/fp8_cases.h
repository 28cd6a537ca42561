#pragma once

#include "ops/fp8/fp8_linear.h"
#include "test/support/op_case.h"

namespace cosmos::test {

/// Weight and input of one fp8_linear, in every scaling.
inline std::vector<OpCase> fp8_linear_cases() {
  struct Shape {
    const char* what;
    std::vector<int64_t> x;
    int64_t out;
    bool bias = false, strided = false, benchmark = false;
  };
  const std::vector<Shape> shapes = {
      {"one of all", {1, 1}, 1},
      {"odd sizes", {3, 7, 37}, 19, true},
      {"a vector", {17}, 5, true},
      {"edges of blocks", {131, 257}, 130},
      {"whole blocks", {2, 64, 256}, 128, true},
      {"a view", {2, 5, 48}, 33, true, true},
      {"seven dimensions", {1, 2, 1, 2, 1, 3, 20}, 24},
      {"empty batch", {0, 5, 16}, 8, true},
      {"dit 2B attention", {1024, 2048}, 2048, false, false, true},
  };
  const std::pair<const char*, ops::Fp8Recipe> recipes[] = {
      {"tensor", {ops::Fp8Scaling::kTensor}},
      {"row", {ops::Fp8Scaling::kRow}},
      {"block, e4m3 gradients, powers of two", {ops::Fp8Scaling::kBlock, at::kFloat8_e4m3fn, true}},
  };
  std::vector<OpCase> cases;
  for (const auto& [name, recipe] : recipes)
    for (const Shape& s : shapes) {
      const ops::Fp8Recipe r = recipe;
      const auto arguments = [](const std::vector<at::Tensor>& t) {
        return t.size() > 2 ? std::optional<at::Tensor>(t[2]) : std::nullopt;
      };
      cases.push_back({std::string("fp8_linear: ") + s.what + ", " + name,
                       [s] {
                         std::vector<at::Tensor> t{s.strided ? strided_leaf(s.x) : leaf(s.x),
                                                   leaf({s.out, s.x.back()})};
                         if (s.bias) t.push_back(leaf({s.out}));
                         return t;
                       },
                       [=](const auto& t) -> std::vector<at::Tensor> {
                         return {ops::fp8_linear(t[0], t[1], arguments(t), r)};
                       },
                       [=](const auto& t) -> std::vector<at::Tensor> {
                         return {ops::reference::fp8_linear(t[0], t[1], arguments(t), r)};
                       },
                       0, 0, s.benchmark, false});
    }
  return cases;
}

/// For the benchmark; test_fp8_quantize.cpp asks for equal bits itself. Passes are of bfloat16.
inline std::vector<OpCase> fp8_quantize_cases() {
  const std::vector<std::pair<const char*, std::vector<int64_t>>> shapes = {
      {"dit 2B tokens", {2560, 2048}}, {"dit 14B weight", {5120, 5120}}};
  using ops::Fp8Granularity;
  struct How {
    const char* what;
    Fp8Granularity granularity;
    double passes;
    bool given, pair;
  };
  const How hows[] = {
      {"tensor", Fp8Granularity::kTensor, 2.5, false, false},
      {"tensor, delayed", Fp8Granularity::kTensor, 1.5, true, false},
      {"row", Fp8Granularity::kRow, 1.5, false, false},
      {"1x128", Fp8Granularity::k1x128, 1.5, false, false},
      {"128x128", Fp8Granularity::k128x128, 1.5, false, false},
      {"1x128, with transpose", Fp8Granularity::k1x128, 2, false, true},
  };
  std::vector<OpCase> cases;
  for (const auto& [what, shape] : shapes)
    for (const How& how : hows) {
      const ops::Fp8Options options{at::kFloat8_e4m3fn, how.granularity, false};
      const auto scale = [given = how.given] {
        return given ? std::optional<at::Tensor>(at::full({}, 0.01f)) : std::nullopt;
      };
      cases.push_back({std::string("fp8_quantize: ") + what + ", " + how.what,
                       [shape = shape] { return std::vector<at::Tensor>{leaf(shape)}; },
                       [=, pair = how.pair](const auto& t) -> std::vector<at::Tensor> {
                         if (pair) return {ops::fp8_quantize_pair(t[0], options, scale()).values};
                         return {ops::fp8_quantize(t[0], options, scale()).values};
                       },
                       [=, pair = how.pair](const auto& t) -> std::vector<at::Tensor> {
                         if (pair) ops::reference::fp8_quantize(t[0], options, scale(), true);
                         return {ops::reference::fp8_quantize(t[0], options, scale()).values};
                       },
                       how.passes, 0, true, false});
    }
  return cases;
}

}  // namespace cosmos::test
