#pragma once

#include "ops/linear_cross_entropy/linear_cross_entropy.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct LinearLossShape {
  const char* what;
  std::vector<int64_t> hidden;
  int64_t classes;
  bool bias = false;
  double ignored = 0;  ///< share of the targets that are ignore_index
  double label_smoothing = 0, z_loss = 0;
  const char* reduction = "mean";
  bool strided = false;
  bool gradcheck = false;
  bool benchmark = false;
  bool frozen = false;  ///< hidden alone gets a gradient
};

inline at::Tensor random_targets(std::vector<int64_t> shape, int64_t classes, double ignored) {
  shape.pop_back();
  const at::Tensor target = at::randint(classes, shape, at::kLong);
  return target.masked_fill(at::rand(shape, at::kDouble) < ignored, -100);
}

/// {hidden, weight, target, bias or nothing}; logits of about unit variance.
inline std::vector<at::Tensor> linear_loss_inputs(const LinearLossShape& s) {
  const double width = 1 / std::sqrt(static_cast<double>(s.hidden.back()));
  const at::Tensor weight = at::randn({s.classes, s.hidden.back()}, at::kDouble) * width;
  std::vector<at::Tensor> out = {s.strided ? strided_leaf(s.hidden) : leaf(s.hidden),
                                 weight.requires_grad_(),
                                 random_targets(s.hidden, s.classes, s.ignored)};
  if (s.bias) out.push_back(leaf({s.classes}));
  return out;
}

inline std::optional<at::Tensor> bias_of(const std::vector<at::Tensor>& t) {
  return t.size() > 3 ? std::optional<at::Tensor>(t[3]) : std::nullopt;
}

/// The same values, the weight and bias without gradient where the case says so.
inline std::vector<at::Tensor> frozen_head(const LinearLossShape& s, std::vector<at::Tensor> t) {
  if (!s.frozen) return t;
  t[1] = t[1].detach();
  if (t.size() > 3) t[3] = t[3].detach();
  return t;
}

inline std::vector<OpCase> linear_cross_entropy_cases() {
  const std::vector<LinearLossShape> shapes = {
      {"one token, one class", {1, 1}, 1, false, 0, 0, 0, "mean", false, true},
      {"one token, two classes", {1, 3}, 2, true, 0, 0, 0, "mean", false, true},
      {"no leading dimension", {5}, 7, false, 0, 0, 0, "none", false, true},
      {"odd", {2, 3, 5}, 7, true, 0, 0, 0, "mean", false, true},
      {"sum", {7, 5}, 9, false, 0, 0, 0, "sum", false, true},
      {"none", {7, 5}, 9, true, 0, 0, 0, "none", false, true},
      {"strided hidden", {3, 4, 6}, 11, false, 0, 0, 0, "mean", true, true},
      {"some ignored", {9, 4}, 6, true, 0.4, 0, 0, "mean", false, true},
      {"all ignored", {5, 4}, 6, true, 1, 0, 0, "mean", false, true},
      {"smoothing", {6, 4}, 5, true, 0.3, 0.1, 0, "mean", false, true},
      {"smoothing alone", {6, 4}, 5, false, 0, 1, 0, "sum", false, true},
      {"z-loss", {6, 4}, 5, true, 0.3, 0, 0.01, "mean", false, true},
      {"all of it, each token", {6, 4}, 5, true, 0.3, 0.2, 0.02, "none", false, true},
      {"a few hundred tokens", {193, 3}, 4, true, 0.1, 0.1, 0.01, "mean", false, true},
      {"five groups of tokens", {2049, 8}, 33, true, 0.1, 0.1, 0.01},
      {"three groups of classes", {5, 8}, 5003, true, 0.2, 0.1, 1e-3, "none"},
      {"three groups of classes, odd", {3, 16}, 4099, false, 0, 0, 0, "none"},
      {"long rows", {3, 16}, 5003, true, 0, 0.1, 1e-3, "sum"},
      {"seven dimensions", {1, 2, 1, 2, 1, 3, 8}, 13, false, 0.2, 0, 0, "none"},
      {"no token", {0, 8}, 13, true},
      {"no token, none", {2, 0, 8}, 13, true, 0, 0, 0, "none"},
      {"frozen, odd", {2, 3, 5}, 7, true, 0.2, 0.1, 0.01, "mean", false, false, false, true},
      {"frozen, sum", {7, 5}, 9, false, 0, 0, 0, "sum", false, false, false, true},
      {"frozen, three groups of classes",
       {5, 8},
       5003,
       true,
       0.2,
       0.1,
       1e-3,
       "none",
       false,
       false,
       false,
       true},
      {"frozen, all ignored", {5, 4}, 6, true, 1, 0, 0, "mean", false, false, false, true},
      {"frozen, no token", {0, 8}, 13, true, 0, 0, 0, "mean", false, false, false, true},
      {"vlm head, small", {512, 512}, 32000, false, 0, 0, 0, "mean", false, false, true},
  };
  std::vector<OpCase> cases;
  for (const LinearLossShape& s : shapes) {
    cases.push_back(
        {std::string("linear_cross_entropy: ") + s.what, [s] { return linear_loss_inputs(s); },
         [s](const auto& inputs) -> std::vector<at::Tensor> {
           const auto t = frozen_head(s, inputs);
           return {ops::linear_cross_entropy(t[0], t[1], t[2], bias_of(t), -100, s.label_smoothing,
                                             s.z_loss, s.reduction)};
         },
         [s](const auto& inputs) -> std::vector<at::Tensor> {
           const auto t = frozen_head(s, inputs);
           return {ops::reference::linear_cross_entropy(t[0], t[1], t[2], bias_of(t), -100,
                                                        s.label_smoothing, s.z_loss, s.reduction)};
         },
         0, 0, s.benchmark, s.gradcheck});
  }
  return cases;
}

inline std::vector<OpCase> linear_log_probs_cases() {
  const std::vector<LinearLossShape> shapes = {
      {"one token, two classes", {1, 3}, 2, true, 0, 0, 0, "", false, true},
      {"odd", {2, 3, 5}, 7, true, 0.2, 0, 0, "", false, true},
      {"strided hidden", {3, 4, 6}, 11, false, 0, 0, 0, "", true, true},
      {"three groups of classes", {5, 8}, 5003, true, 0.2},
      {"frozen, three groups of classes",
       {5, 8},
       5003,
       true,
       0.2,
       0,
       0,
       "",
       false,
       false,
       false,
       true},
      {"no token", {0, 8}, 13, true},
      {"rollout, small", {512, 512}, 32000, false, 0, 0, 0, "", false, false, true},
  };
  std::vector<OpCase> cases;
  for (const LinearLossShape& s : shapes) {
    cases.push_back({std::string("linear_log_probs: ") + s.what,
                     [s] { return linear_loss_inputs(s); },
                     [s](const auto& inputs) -> std::vector<at::Tensor> {
                       const auto t = frozen_head(s, inputs);
                       return {ops::linear_log_probs(t[0], t[1], t[2], bias_of(t), 0.7)};
                     },
                     [s](const auto& inputs) -> std::vector<at::Tensor> {
                       const auto t = frozen_head(s, inputs);
                       return {std::get<0>(ops::reference::linear_log_probs_entropy(
                           t[0], t[1], t[2], bias_of(t), 0.7))};
                     },
                     0, 0, s.benchmark, s.gradcheck});
  }
  return cases;
}

}  // namespace cosmos::test
