#pragma once

#include "ops/rms_norm/rms_norm.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct RmsNormShape {
  const char* what;
  std::vector<int64_t> x;
  bool strided = false;
  bool gradcheck = false;
  bool benchmark = false;
};

/// [B, L, heads, d] as the linear gives it (one of three chunks of [B, L, 3 * heads * d]), or with
/// heads before tokens in memory.
inline at::Tensor heads_leaf(const RmsNormShape& s) {
  if (!s.strided) return leaf(s.x);
  return at::randn({s.x[0], s.x[2], s.x[1], s.x[3]}, at::kDouble).transpose(1, 2).requires_grad_();
}

inline std::vector<OpCase> rms_norm_rope_cases() {
  const std::vector<RmsNormShape> shapes = {
      {"one of all", {1, 1, 1, 2}, false, true},
      {"odd number of tokens", {2, 7, 3, 6}, false, true},
      {"heads first in memory", {2, 5, 3, 8}, true, true},
      {"heads of 64", {1, 67, 5, 64}},
      {"heads of 128, strided", {2, 33, 3, 128}, true},
      {"many heads", {1, 3, 300, 4}},
      {"long heads", {1, 2, 2, 1026}},
      {"empty batch", {0, 7, 3, 6}},
      {"no tokens", {2, 0, 3, 6}},
      {"dit self-attention", {1, 960, 8, 64}, false, false, true},
      {"dit 2B", {1, 2560, 16, 128}, false, false, true},
  };
  std::vector<OpCase> cases;
  for (const RmsNormShape& s : shapes) {
    cases.push_back({std::string("rms_norm_rope: ") + s.what,
                     [s] {
                       const at::Tensor angle = at::randn({s.x[1], s.x[3] / 2}, at::kDouble);
                       const auto table = s.gradcheck ? at::kDouble : at::kFloat;
                       return std::vector<at::Tensor>{heads_leaf(s), leaf({s.x[3]}),
                                                      angle.cos().to(table), angle.sin().to(table)};
                     },
                     [](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::rms_norm_rope(t[0], t[1], t[2], t[3], 1e-5)};
                     },
                     [](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::rms_norm_rope(t[0], t[1], t[2], t[3], 1e-5)};
                     },
                     2, 3, s.benchmark, s.gradcheck});
  }
  return cases;
}

inline std::vector<OpCase> rms_norm_cases() {
  const std::vector<RmsNormShape> shapes = {
      {"one element", {1, 1}, false, true},
      {"a vector", {9}, false, true},
      {"odd rows", {3, 5, 7}, false, true},
      {"heads first in memory", {2, 5, 3, 9}, true, true},
      {"cross-attention text", {2, 64, 8, 64}},
      {"wide rows", {2, 3, 5121}},
      {"seven dimensions", {1, 2, 1, 2, 3, 2, 18}},
      {"empty batch", {0, 5, 16}},
      {"dit cross-attention", {1, 960, 8, 64}, false, false, true},
      {"vlm hidden states", {1, 2048, 3584}, false, false, true},
  };
  std::vector<OpCase> cases;
  for (const RmsNormShape& s : shapes) {
    cases.push_back(
        {std::string("rms_norm: ") + s.what,
         [s] {
           return std::vector<at::Tensor>{heads_leaf(s), leaf({s.x.back()})};
         },
         [](const auto& t) -> std::vector<at::Tensor> { return {ops::rms_norm(t[0], t[1], 1e-2)}; },
         [](const auto& t) -> std::vector<at::Tensor> {
           return {ops::reference::rms_norm(t[0], t[1], 1e-2)};
         },
         2, 3, s.benchmark, s.gradcheck});
  }
  return cases;
}

}  // namespace cosmos::test
