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

struct RopeVariant {
  const char* what = "";
  int64_t pairs = 0;  ///< 0: half a head
  bool batched = false, interleaved = false, norm = true;
};

/// Inputs: x, cos, sin, and the weight where there is one.
inline OpCase rms_norm_rope_case(const RmsNormShape& s, const RopeVariant& v) {
  const auto inputs = [s, v] {
    std::vector<int64_t> size{s.x[1], v.pairs > 0 ? v.pairs : s.x[3] / 2};
    if (v.batched) size.insert(size.begin(), s.x[0]);
    const at::Tensor angle = at::randn(size, at::kDouble);
    const auto type = s.gradcheck ? at::kDouble : at::kFloat;
    std::vector<at::Tensor> t{heads_leaf(s), angle.cos().to(type), angle.sin().to(type)};
    if (v.norm) t.push_back(leaf({s.x[3]}));
    return t;
  };
  const auto weight = [](const auto& t) {
    return t.size() > 3 ? std::optional<at::Tensor>(t[3]) : std::nullopt;
  };
  const auto fused = [=](const auto& t) -> std::vector<at::Tensor> {
    return {ops::rms_norm_rope(t[0], weight(t), t[1], t[2], 1e-5, v.interleaved)};
  };
  const auto plain = [=](const auto& t) -> std::vector<at::Tensor> {
    return {ops::reference::rms_norm_rope(t[0], weight(t), t[1], t[2], 1e-5, v.interleaved)};
  };
  return {std::string("rms_norm_rope: ") + s.what + v.what,
          inputs,
          fused,
          plain,
          2,
          v.norm ? 3.0 : 2.0,
          s.benchmark,
          s.gradcheck};
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
  for (const RmsNormShape& s : shapes) cases.push_back(rms_norm_rope_case(s, {}));
  const std::vector<RopeVariant> variants = {
      {.what = ", tables per sample", .batched = true},
      {.what = ", interleaved", .interleaved = true},
      {.what = ", interleaved, per sample", .batched = true, .interleaved = true},
      {.what = ", no weight", .norm = false},
      {.what = ", no weight, per sample, interleaved",
       .batched = true,
       .interleaved = true,
       .norm = false},
  };
  for (const RopeVariant& v : variants)
    for (const std::size_t i : {1, 2, 3, 4, 6, 7})
      cases.push_back(rms_norm_rope_case(shapes[i], v));
  const std::vector<RopeVariant> partial = {
      {.what = ", one pair", .pairs = 1},
      {.what = ", two pairs, interleaved", .pairs = 2, .interleaved = true},
      {.what = ", two pairs, no weight", .pairs = 2, .batched = true, .norm = false},
  };
  const std::vector<RmsNormShape> partial_shapes = {{"odd head", {2, 3, 2, 7}, false, true},
                                                    {"heads of 64", {2, 33, 3, 64}, true}};
  for (RopeVariant v : partial)
    for (const RmsNormShape& s : partial_shapes) {
      if (s.x[3] == 64) v.pairs *= 8;
      cases.push_back(rms_norm_rope_case(s, v));
    }
  const RmsNormShape vlm{"vlm 7B", {1, 2048, 28, 128}, false, false, true};
  cases.push_back(rms_norm_rope_case(vlm, {.what = ", no weight", .batched = true, .norm = false}));
  cases.push_back(rms_norm_rope_case(vlm, {.what = ", per sample", .batched = true}));
  cases.push_back(rms_norm_rope_case(vlm, {.what = ", interleaved", .interleaved = true}));
  cases.push_back(rms_norm_rope_case(vlm, {.what = ", half a head", .pairs = 32}));
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
