#pragma once

#include "ops/causal_conv/causal_conv.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct CausalConvShape {
  const char* what;
  std::vector<int64_t> x;       ///< B, T, H, W, C
  int64_t out;                  ///< channels
  std::vector<int64_t> kernel;  ///< kt, kh, kw
  std::vector<int64_t> stride = {1, 1, 1};
  int64_t space_pad = 0;
  int64_t front = 0;
  bool repeat_first = false;
  int64_t past = -1;  ///< frames; -1: none given
  bool bias = true;
  bool gradcheck = false;
  bool benchmark = false;
};

/// {x, weight, bias?, past?}
inline std::vector<at::Tensor> causal_conv_inputs(const CausalConvShape& s) {
  std::vector<int64_t> weight = {s.out, s.x[4]};
  weight.insert(weight.end(), s.kernel.begin(), s.kernel.end());
  const double fan_in = static_cast<double>(s.x[4] * s.kernel[0] * s.kernel[1] * s.kernel[2]);
  std::vector<at::Tensor> out = {
      leaf(s.x), (at::randn(weight, at::kDouble) / std::sqrt(fan_in)).requires_grad_()};
  if (s.bias) out.push_back(leaf({s.out}));
  std::vector<int64_t> past = s.x;
  past[1] = s.past;
  if (s.past >= 0) out.push_back(leaf(past));
  return out;
}

template <typename Conv>
OpFunction causal_conv_of(const CausalConvShape& s, Conv conv) {
  return [s, conv](const std::vector<at::Tensor>& t) -> std::vector<at::Tensor> {
    using Optional = std::optional<at::Tensor>;
    return {conv(t[0], s.past >= 0 ? Optional(t.back()) : std::nullopt, t[1],
                 s.bias ? Optional(t[2]) : std::nullopt, s.stride, s.space_pad, s.front,
                 s.repeat_first)};
  };
}

inline std::vector<OpCase> causal_conv_cases() {
  std::vector<CausalConvShape> shapes = {
      {"one of everything", {1, 1, 1, 1, 1}, 1, {1, 1, 1}},
      {"in time, zeros", {2, 5, 2, 3, 3}, 4, {3, 1, 1}, {1, 1, 1}, 0, 2},
      {"in time, first frame again", {2, 5, 2, 3, 3}, 4, {3, 1, 1}, {1, 1, 1}, 0, 2, true},
      {"in time, stride 2", {2, 5, 2, 3, 3}, 4, {3, 1, 1}, {2, 1, 1}, 0, 2, true},
      {"in time, after a past", {2, 4, 2, 3, 3}, 4, {3, 1, 1}, {1, 1, 1}, 0, 2, true, 2},
      {"in time, after no past", {1, 5, 2, 3, 3}, 4, {3, 1, 1}, {1, 1, 1}, 0, 2, true, 0},
      {"in time, more in front than the kernel", {1, 2, 2, 1, 3}, 2, {3, 1, 1}, {1, 1, 1}, 0, 5},
      {"one frame", {2, 1, 3, 4, 2}, 3, {3, 3, 3}, {1, 1, 1}, 1, 2, true},
      {"full, zeros", {2, 3, 4, 5, 2}, 3, {3, 3, 3}, {1, 1, 1}, 1, 2},
      {"full, first frame again, no bias",
       {2, 3, 4, 5, 2},
       3,
       {3, 3, 3},
       {1, 1, 1},
       1,
       2,
       true,
       -1,
       false},
      {"full, strides", {1, 5, 6, 7, 2}, 3, {3, 3, 3}, {2, 2, 2}, 1, 2, true},
      {"full, after a past", {2, 2, 4, 5, 2}, 3, {3, 3, 3}, {1, 1, 1}, 1, 2, false, 2},
      {"full, stride 2 after a past", {1, 4, 4, 5, 2}, 3, {3, 3, 3}, {2, 1, 1}, 1, 2, false, 1},
      {"in space", {2, 3, 4, 5, 2}, 3, {1, 3, 3}, {1, 1, 1}, 1},
      {"empty batch", {0, 3, 4, 5, 2}, 3, {3, 3, 3}, {1, 1, 1}, 1, 2, true},
  };
  for (CausalConvShape& s : shapes) s.gradcheck = s.x[0] > 0;
  const auto bench = [&](const char* what, std::vector<int64_t> x, std::vector<int64_t> kernel,
                         bool repeat_first) {
    shapes.push_back({what,
                      x,
                      x[4],
                      kernel,
                      {1, 1, 1},
                      kernel[1] / 2,
                      kernel[0] - 1,
                      repeat_first,
                      -1,
                      true,
                      false,
                      true});
  };
  bench("cosmos time, 128 channels", {1, 9, 64, 64, 128}, {3, 1, 1}, true);
  bench("cosmos time, 256 channels", {1, 9, 32, 32, 256}, {3, 1, 1}, true);
  bench("wan, 96 channels", {1, 9, 64, 64, 96}, {3, 3, 3}, false);
  bench("wan, 32 channels", {2, 9, 64, 64, 32}, {3, 3, 3}, false);
  std::vector<OpCase> cases;
  for (const CausalConvShape& s : shapes)
    cases.push_back({std::string("causal_conv: ") + s.what, [s] { return causal_conv_inputs(s); },
                     causal_conv_of(s, ops::causal_conv),
                     causal_conv_of(s, ops::reference::causal_conv), 0, 0, s.benchmark,
                     s.gradcheck});
  return cases;
}

}  // namespace cosmos::test
