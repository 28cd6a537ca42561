#pragma once

#include "ops/norm/adaln.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct AdaLnShape {
  const char* what;
  std::vector<int64_t> x, modulation;
  bool strided = false;
  bool gradcheck = false;
  bool benchmark = false;
  double eps = 1e-6;
};

inline std::vector<AdaLnShape> adaln_shapes() {
  return {
      {"per sample", {2, 3, 5, 16}, {2, 1, 1, 16}, false, true},
      {"per frame", {2, 3, 5, 7}, {2, 3, 1, 7}, false, true},
      {"per token", {1, 2, 3, 6}, {1, 2, 3, 6}, false, true},
      {"one modulation for all", {3, 4, 8}, {1, 1, 8}, false, true},
      {"shared by samples, per frame", {2, 3, 5, 16}, {1, 3, 1, 16}},
      {"three dimensions", {2, 70, 33}, {2, 1, 33}},
      // eps large enough that the true gradient, zero, is not rounding times 1000
      {"one row, one element", {1, 1}, {1, 1}, false, true, false, 0.5},
      {"odd width", {2, 3, 67, 101}, {2, 3, 1, 101}},
      {"wide rows", {1, 2, 3, 5121}, {1, 2, 1, 5121}},
      {"seven dimensions", {1, 2, 1, 2, 3, 2, 18}, {1, 2, 1, 1, 1, 1, 18}},
      {"empty batch", {0, 3, 5, 16}, {0, 3, 1, 16}},
      {"no tokens", {2, 3, 0, 16}, {2, 3, 1, 16}},
      {"strided", {2, 3, 9, 20}, {2, 3, 1, 20}, true, true},
      {"strided per token", {2, 3, 9, 20}, {2, 3, 9, 20}, true},
      {"dit, one timestep", {1, 4, 240, 512}, {1, 1, 1, 512}, false, false, true},
      {"dit, per frame", {1, 4, 240, 512}, {1, 4, 1, 512}, false, false, true},
      {"dit 2B, per frame", {1, 8, 320, 2048}, {1, 8, 1, 2048}, false, false, true},
  };
}

inline std::vector<OpCase> adaln_cases() {
  std::vector<OpCase> cases;
  for (const AdaLnShape& s : adaln_shapes()) {
    const double eps = s.eps;
    const auto rows = [s] { return s.strided ? transposed_leaf(s.x) : leaf(s.x); };
    const auto modulation = [s] {
      return s.strided ? strided_leaf(s.modulation) : leaf(s.modulation);
    };
    cases.push_back({std::string("adaln: ") + s.what,
                     [=] {
                       return std::vector<at::Tensor>{rows(), modulation(), modulation()};
                     },
                     [=](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::adaln(t[0], t[1], t[2], eps)};
                     },
                     [=](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::adaln(t[0], t[1], t[2], eps)};
                     },
                     2, 3, s.benchmark, s.gradcheck});
    cases.push_back({std::string("gated_residual: ") + s.what,
                     [=] {
                       return std::vector<at::Tensor>{rows(), rows(), modulation()};
                     },
                     [=](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::gated_residual(t[0], t[1], t[2])};
                     },
                     [=](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::gated_residual(t[0], t[1], t[2])};
                     },
                     3, 3, s.benchmark, s.gradcheck});
    cases.push_back(
        {std::string("gated_residual_adaln: ") + s.what,
         [=] {
           return std::vector<at::Tensor>{rows(), rows(), modulation(), modulation(), modulation()};
         },
         [=](const auto& t) -> std::vector<at::Tensor> {
           auto [sum, normed] = ops::gated_residual_adaln(t[0], t[1], t[2], t[3], t[4], eps);
           return {sum, normed};
         },
         [=](const auto& t) -> std::vector<at::Tensor> {
           const at::Tensor sum = ops::reference::gated_residual(t[0], t[1], t[2]);
           return {sum, ops::reference::adaln(sum, t[3], t[4], eps)};
         },
         4, 6, s.benchmark, s.gradcheck});
  }
  return cases;
}

}  // namespace cosmos::test
