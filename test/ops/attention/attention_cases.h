#pragma once

#include "ops/attention/attention.h"
#include "test/support/op_case.h"

namespace cosmos::test {

using Offsets = std::vector<int64_t>;

struct VarlenShape {
  const char* what;
  Offsets q_offsets, k_offsets;
  int64_t heads, kv_heads, dim;
  bool causal = false;
  bool gradcheck = false;
};

inline std::vector<OpCase> varlen_attention_cases() {
  const std::vector<VarlenShape> shapes = {
      {"one token", {0, 1}, {0, 1}, 1, 1, 1, false, true},
      {"three sequences", {0, 3, 4, 9}, {0, 3, 4, 9}, 2, 2, 4, false, true},
      {"causal", {0, 3, 4, 9}, {0, 3, 4, 9}, 2, 2, 4, true, true},
      {"fewer queries than keys, causal", {0, 2, 5}, {0, 4, 10}, 2, 2, 3, true, true},
      {"more queries than keys, causal", {0, 4, 7}, {0, 2, 4}, 1, 1, 5, true},
      {"grouped heads", {0, 5, 17}, {0, 5, 17}, 6, 2, 8, true, true},
      {"an empty sequence", {0, 4, 4, 6}, {0, 4, 4, 6}, 2, 1, 8},
      {"a sequence without keys", {0, 4, 6}, {0, 4, 4}, 2, 1, 8},
      {"no sequence", {0}, {0}, 2, 2, 4},
      {"many lengths", {0, 1, 40, 41, 170, 200}, {0, 1, 40, 41, 170, 200}, 4, 4, 16, true},
  };
  std::vector<OpCase> cases;
  for (const VarlenShape& s : shapes)
    cases.push_back({std::string("varlen_attention: ") + s.what,
                     [s] {
                       return std::vector<at::Tensor>{
                           leaf({s.q_offsets.back(), s.heads, s.dim}),
                           leaf({s.k_offsets.back(), s.kv_heads, s.dim}),
                           leaf({s.k_offsets.back(), s.kv_heads, s.dim})};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::varlen_attention(t[0], t[1], t[2], s.q_offsets, s.k_offsets,
                                                     s.causal, 0.7)};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::varlen_attention(t[0], t[1], t[2], s.q_offsets,
                                                                s.k_offsets, s.causal, 0.7)};
                     },
                     4, 8, false, s.gradcheck});
  return cases;
}

struct NeighborhoodShape {
  const char* what;
  std::array<ops::NeighborhoodAxis, 3> axes;
  int64_t batch, heads, kv_heads, dim;
  bool gradcheck = false;
};

inline std::vector<OpCase> neighborhood_attention_cases() {
  const std::vector<NeighborhoodShape> shapes = {
      {"one token", {{{}, {}, {}}}, 1, 1, 1, 2, true},
      {"a window that moves", {{{}, {}, {9, 3}}}, 2, 1, 1, 3, true},
      {"an even window in two dimensions", {{{}, {5, 4}, {7, 2}}}, 1, 2, 2, 4, true},
      {"windows with strides", {{{2, 2}, {8, 4, 2}, {9, 6, 3}}}, 1, 2, 2, 4, true},
      {"long strides have no mask", {{{3, 3}, {8, 4, 4}, {16, 8, 4}}}, 2, 2, 1, 8},
      {"dilation that does not divide", {{{}, {7, 3, 1, 2}, {11, 3, 1, 3}}}, 1, 2, 2, 4},
      {"causal in time", {{{6, 3, 1, 1, true}, {4, 3}, {5, 5}}}, 1, 2, 2, 4, true},
      {"causal with strides and dilation", {{{11, 4, 2, 2, true}, {2, 2}, {3, 1}}}, 1, 1, 1, 4},
      {"empty batch", {{{}, {4, 3}, {4, 3}}}, 0, 2, 2, 4},
      {"the whole grid", {{{2, 2}, {3, 3}, {4, 4}}}, 1, 2, 2, 4},
  };
  std::vector<OpCase> cases;
  for (const NeighborhoodShape& s : shapes)
    cases.push_back({std::string("neighborhood_attention: ") + s.what,
                     [s] {
                       const int64_t n = s.axes[0].length * s.axes[1].length * s.axes[2].length;
                       return std::vector<at::Tensor>{leaf({s.batch, n, s.heads, s.dim}),
                                                      leaf({s.batch, n, s.kv_heads, s.dim}),
                                                      leaf({s.batch, n, s.kv_heads, s.dim})};
                     },
                     [plan = std::make_shared<ops::NeighborhoodPlan>(s.axes, at::kCPU)](
                         const auto& t) -> std::vector<at::Tensor> {
                       return {ops::neighborhood_attention(t[0], t[1], t[2], *plan)};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::neighborhood_attention(t[0], t[1], t[2], s.axes)};
                     },
                     4, 8, false, s.gradcheck});
  return cases;
}

}  // namespace cosmos::test
