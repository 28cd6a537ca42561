#pragma once

#include "ops/fsq/fsq.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct FsqShape {
  const char* what;
  std::vector<int64_t> z;
  std::vector<int64_t> levels;
  bool strided = false;
  bool benchmark = false;
};

/// The codes only: indices have no gradient. No central differences: codes are steps.
inline std::vector<OpCase> fsq_cases() {
  const std::vector<int64_t> cosmos_levels = {8, 8, 8, 5, 5, 5};
  const std::vector<FsqShape> shapes = {
      {"one element", {1}, {2}},
      {"one row", {6}, cosmos_levels},
      {"odd rows", {3, 7, 3}, {7, 4, 3}},
      {"blocks and a rest", {2, 3, 5, 7, 6}, cosmos_levels},
      {"strided", {2, 3, 4}, {8, 5, 5, 5}, true},
      {"sixteen dimensions", {37, 16}, {2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3, 4, 2}},
      {"empty batch", {0, 7, 6}, cosmos_levels},
      {"cosmos 33 frames of 720p", {1, 9, 90, 160, 6}, cosmos_levels, false, true},
  };
  std::vector<OpCase> cases;
  for (const FsqShape& s : shapes)
    cases.push_back(
        {std::string("fsq: ") + s.what,
         [s] { return std::vector<at::Tensor>{s.strided ? strided_leaf(s.z) : leaf(s.z)}; },
         [s](const auto& t) -> std::vector<at::Tensor> {
           return {std::get<0>(ops::fsq(t[0], s.levels))};
         },
         [s](const auto& t) -> std::vector<at::Tensor> {
           return {std::get<0>(ops::reference::fsq(t[0], s.levels))};
         },
         2.0 + 1.0 / static_cast<double>(s.levels.size()), 3, s.benchmark});
  return cases;
}

}  // namespace cosmos::test
