#pragma once

#include "ops/patchify/patchify.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct PatchCase {
  const char* what;
  std::vector<int64_t> video;  ///< [B, C, T, H, W]
  std::vector<int64_t> patch;
  bool transposed = false;  ///< rows and columns (or patches and features) swapped in memory
  bool gradcheck = false;
  bool benchmark = false;
};

inline std::vector<int64_t> token_shape(const PatchCase& c) {
  const auto& v = c.video;
  const auto& p = c.patch;
  return {v[0], v[2] / p[0], v[3] / p[1], v[4] / p[2], v[1] * p[0] * p[1] * p[2]};
}

/// Both directions in both orders.
inline std::vector<OpCase> patchify_cases() {
  using ops::PatchOrder;
  const std::vector<PatchCase> shapes = {
      {"one element", {1, 1, 1, 1, 1}, {1, 1, 1}, false, true},
      {"patches of 2x3x5", {2, 3, 4, 6, 10}, {2, 3, 5}, false, true},
      {"rows and columns swapped", {2, 3, 2, 4, 6}, {1, 2, 2}, true, true},
      {"one patch", {1, 5, 2, 4, 4}, {2, 4, 4}},
      {"patches of one", {2, 3, 2, 5, 7}, {1, 1, 1}},
      {"odd rows of patches", {3, 17, 3, 6, 14}, {1, 2, 2}},
      {"lines longer than a block", {1, 2, 1, 2, 1400}, {1, 2, 4}},
      {"empty batch", {0, 3, 2, 4, 4}, {1, 2, 2}},
      {"no channels", {2, 0, 2, 4, 4}, {1, 2, 2}},
      {"dit 720p", {1, 17, 24, 88, 160}, {1, 2, 2}, false, false, true},
  };
  std::vector<OpCase> cases;
  for (const PatchCase& s : shapes)
    for (const auto order : {PatchOrder::kChannelsFirst, PatchOrder::kChannelsLast}) {
      const std::string what =
          std::string(order == PatchOrder::kChannelsFirst ? "C first, " : "C last, ") + s.what;
      const auto input = [s](const std::vector<int64_t>& shape) {
        return std::vector<at::Tensor>{s.transposed ? transposed_leaf(shape) : leaf(shape)};
      };
      cases.push_back({"patchify: " + what, [s, input] { return input(s.video); },
                       [s, order](const auto& t) -> std::vector<at::Tensor> {
                         return {ops::patchify(t[0], s.patch, order)};
                       },
                       [s, order](const auto& t) -> std::vector<at::Tensor> {
                         return {ops::reference::patchify(t[0], s.patch, order)};
                       },
                       2, 2, s.benchmark, s.gradcheck});
      cases.push_back({"unpatchify: " + what, [s, input] { return input(token_shape(s)); },
                       [s, order](const auto& t) -> std::vector<at::Tensor> {
                         return {ops::unpatchify(t[0], s.patch, order)};
                       },
                       [s, order](const auto& t) -> std::vector<at::Tensor> {
                         return {ops::reference::unpatchify(t[0], s.patch, order)};
                       },
                       2, 2, s.benchmark, s.gradcheck});
    }
  return cases;
}

}  // namespace cosmos::test
