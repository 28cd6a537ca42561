#pragma once

#include "ops/dropout/dropout.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct DropoutShape {
  const char* what;
  std::vector<int64_t> x;
  std::vector<int64_t> seeds = {7};
  bool transposed = false;
  bool gradcheck = false;
  bool benchmark = false;
  std::vector<int64_t> slice = {};
};

inline std::vector<OpCase> dropout_cases() {
  const std::vector<DropoutShape> shapes = {
      {"one element", {1}, {-1}, false, true},
      {"a seed for each sample", {3, 5, 7}, {1, 2, 1}, false, true},
      {"transposed", {2, 5, 9}, {7}, true, true},
      {"a unit and one element", {513}},
      {"samples of odd size", {2, 1, 3, 1, 257, 1, 3}, {1LL << 40, 2}},
      {"half a unit", {2, 256}, {3, 4}},
      {"empty batch", {0, 5, 16}},
      {"tokens of a slice", {2, 3, 5, 7}, {1, 2}, false, true, false, {5, 5, 15, 0, 7}},
      {"features of a slice", {2, 5, 9}, {3}, true, true, false, {5, 0, 5, 9, 18}},
      {"a slice of both", {2, 3, 11, 300}, {4, 5}, false, false, false, {11, 22, 44, 300, 900}},
      {"an even slice", {1, 4, 8, 256}, {6}, false, false, false, {8, 8, 16, 256, 512}},
      {"dit hidden states", {1, 960, 2048}, {7}, false, false, true},
      {"dit 2B hidden states", {2, 2560, 2048}, {7, 8}, false, false, true},
  };
  std::vector<OpCase> cases;
  for (const DropoutShape& s : shapes) {
    cases.push_back(
        {std::string("seeded_dropout: ") + s.what,
         [s] { return std::vector<at::Tensor>{s.transposed ? transposed_leaf(s.x) : leaf(s.x)}; },
         [s](const auto& t) -> std::vector<at::Tensor> {
           return {ops::seeded_dropout(t[0], 0.3, s.seeds, s.slice)};
         },
         [s](const auto& t) -> std::vector<at::Tensor> {
           return {ops::reference::seeded_dropout(t[0], 0.3, s.seeds, s.slice)};
         },
         2, 2, s.benchmark, s.gradcheck});
  }
  return cases;
}

}  // namespace cosmos::test
