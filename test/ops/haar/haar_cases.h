#pragma once

#include "ops/haar/haar.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct HaarShape {
  const char* what;
  std::vector<int64_t> video;
  int64_t patch;
  bool first = false;
  bool strided = false;
  bool gradcheck = false;
  bool benchmark = false;
};

inline std::vector<HaarShape> haar_shapes() {
  return {
      {"one block", {1, 1, 2, 2, 2}, 2, false, false, true},
      {"one frame", {1, 2, 1, 4, 4}, 2, true, false, true},
      {"two levels", {1, 1, 4, 4, 8}, 4, false, false, true},
      {"two levels, start of a clip", {1, 1, 5, 4, 4}, 4, true, false, true},
      {"three levels", {1, 1, 8, 8, 16}, 8},
      {"three levels, start of a clip", {1, 2, 9, 16, 8}, 8, true},
      {"lanes and a rest", {2, 3, 9, 12, 76}, 4, true},
      {"lanes and a rest, one level", {2, 3, 4, 6, 70}, 2},
      {"strided", {1, 3, 4, 8, 12}, 4, false, true},
      {"empty batch", {0, 3, 4, 8, 8}, 4},
      {"no frames", {1, 3, 0, 8, 8}, 4},
      {"cosmos", {1, 3, 17, 192, 320}, 4, true, false, false, true},
      {"cosmos, one level", {1, 3, 9, 192, 320}, 2, true, false, false, true},
  };
}

inline std::vector<OpCase> haar_patch_cases() {
  std::vector<OpCase> cases;
  for (const HaarShape& s : haar_shapes())
    cases.push_back(
        {std::string("haar_patch: ") + s.what,
         [s] { return std::vector<at::Tensor>{s.strided ? strided_leaf(s.video) : leaf(s.video)}; },
         [s](const auto& t) -> std::vector<at::Tensor> {
           return {ops::haar_patch(t[0], s.patch, s.first)};
         },
         [s](const auto& t) -> std::vector<at::Tensor> {
           return {ops::reference::haar_patch(t[0], s.patch, s.first)};
         },
         2, 2, s.benchmark, s.gradcheck});
  return cases;
}

inline std::vector<OpCase> haar_unpatch_cases() {
  std::vector<OpCase> cases;
  for (const HaarShape& s : haar_shapes()) {
    const int64_t p = s.patch, frames = s.video[2] + (s.first ? p - 1 : 0);
    const std::vector<int64_t> shape = {s.video[0], frames / p, s.video[3] / p, s.video[4] / p,
                                        s.video[1] * p * p * p};
    cases.push_back({std::string("haar_unpatch: ") + s.what,
                     [s, shape] {
                       return std::vector<at::Tensor>{s.strided ? strided_leaf(shape)
                                                                : leaf(shape)};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::haar_unpatch(t[0], s.patch, s.first)};
                     },
                     [s](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::haar_unpatch(t[0], s.patch, s.first)};
                     },
                     2, 2, s.benchmark, s.gradcheck});
  }
  return cases;
}

}  // namespace cosmos::test
