// Linear layer with cross-entropy, and log-probabilities, against the plain formula in float64.
#include <limits>

#include "ops/core/error.h"
#include "ops/core/peak_memory.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_driver.h"
#include "ops/linear_cross_entropy/split_linear_cross_entropy.h"
#include "test/ops/linear_cross_entropy/linear_cross_entropy_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

namespace {

bool close_to(const at::Tensor& got, const at::Tensor& want, double tolerance) {
  return (got.to(at::kDouble) - want.to(at::kDouble)).abs().max().item<double>() <= tolerance;
}

std::vector<at::Tensor> float_inputs(std::vector<int64_t> hidden, int64_t classes, bool bias) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& x : linear_loss_inputs({"", std::move(hidden), classes, bias}))
    out.push_back(x.is_floating_point() ? x.detach().to(at::kFloat).requires_grad_() : x);
  return out;
}

}  // namespace

TEST_CASE("linear cross-entropy equals the plain formula in every dtype and instruction set",
          "[ops]") {
  check_cases(linear_cross_entropy_cases());
}

TEST_CASE("linear log-probabilities equal the plain formula in every dtype and instruction set",
          "[ops]") {
  check_cases(linear_log_probs_cases());
}

TEST_CASE("linear cross-entropy gradients equal central differences", "[ops]") {
  check_gradients(linear_cross_entropy_cases());
  check_gradients(linear_log_probs_cases());
}

TEST_CASE("entropies equal the plain formula and carry no gradient", "[ops]") {
  torch::manual_seed(1);
  for (const int64_t classes : {2, 5003}) {
    auto t = float_inputs({6, 8}, classes, true);
    t[2][1] = -100;
    const auto [log_p, entropy] = ops::linear_log_probs_entropy(t[0], t[1], t[2], t[3], 0.5);
    const auto [want_log_p, want] =
        ops::reference::linear_log_probs_entropy(t[0], t[1], t[2], t[3], 0.5);
    CHECK(close_to(log_p, want_log_p, 1e-5));
    CHECK(close_to(entropy, want, 1e-5));
    CHECK(entropy[1].item<float>() == 0);
    CHECK(log_p.requires_grad());
    CHECK_FALSE(entropy.requires_grad());
  }
}

TEST_CASE("cross-entropy survives logits beyond exp's range", "[ops]") {
  const at::Tensor hidden = at::tensor({300.f, -300.f, -1e4f, 1e4f, 0.f, 0.f}).view({3, 2});
  const at::Tensor weight = at::eye(2), target = at::tensor({0, 0, 1}, at::kLong);
  const at::Tensor loss = ops::linear_cross_entropy(hidden, weight, target, {}, -100, 0, 0, "none");
  CHECK(close_to(loss, at::tensor({0.0, 2e4, std::log(2.0)}), 1e-6));
}

TEST_CASE("classes masked by -infinity get probability 0 and no gradient", "[ops]") {
  torch::manual_seed(2);
  auto t = float_inputs({4, 8}, 1500, true);
  {
    const at::NoGradGuard no_grad;
    t[3].slice(0, 0, 1100).fill_(-std::numeric_limits<float>::infinity());
    t[2].fill_(1200);
  }
  for (const char* reduction : {"mean", "none"}) {
    const at::Tensor loss =
        ops::linear_cross_entropy(t[0], t[1], t[2], t[3], -100, 0, 0, reduction).sum();
    const auto grads = torch::autograd::grad({loss}, {t[0], t[1]});
    CHECK(std::isfinite(loss.item<float>()));
    CHECK(grads[0].isfinite().all().item<bool>());
    CHECK(grads[1].slice(0, 0, 1100).abs().max().item<float>() == 0);
  }
  const at::Tensor entropy = std::get<1>(ops::linear_log_probs_entropy(t[0], t[1], t[2], t[3]));
  CHECK(entropy.isfinite().all().item<bool>());
}

TEST_CASE("a frozen head whose first classes are all masked", "[ops]") {
  torch::manual_seed(3);
  auto t = float_inputs({3, 8}, 5003, true);
  const at::Tensor weight = t[1].detach();
  at::Tensor bias = t[3].detach().clone();
  bias.narrow(0, 0, 4000).fill_(-INFINITY);  // the first group of classes and more
  const at::Tensor target = at::full({3}, 4500, at::kLong);
  const auto gradient = [&](const auto& op) {
    return torch::autograd::grad({op(t[0], weight, target, bias, -100, 0, 0, "sum")}, {t[0]})[0];
  };
  CHECK(close_to(gradient(ops::linear_cross_entropy),
                 gradient(ops::reference::linear_cross_entropy), 1e-5));
}

TEST_CASE("a NaN among the logits is not hidden", "[ops]") {
  auto t = float_inputs({2, 4}, 3000, true);
  const at::NoGradGuard no_grad;
  t[3][2000] = std::nan("");
  const at::Tensor loss = ops::linear_cross_entropy(t[0], t[1], t[2], t[3], -100, 0, 0, "none");
  CHECK(loss.isnan().all().item<bool>());
}

TEST_CASE("the mean over no supervised token is 0, with gradients 0", "[ops]") {
  auto t = float_inputs({3, 4}, 6, false);
  const at::Tensor loss = ops::linear_cross_entropy(t[0], t[1], at::full({3}, -100, at::kLong));
  CHECK(loss.item<float>() == 0);
  for (const at::Tensor& g : torch::autograd::grad({loss}, {t[0], t[1]}))
    CHECK(g.abs().max().item<float>() == 0);
}

TEST_CASE("a frozen weight or hidden gets no gradient and changes no other", "[ops]") {
  torch::manual_seed(4);
  for (const char* reduction : {"mean", "none"}) {
    auto t = float_inputs({200, 8}, 30, true);
    const auto loss = [&](const at::Tensor& hidden, const at::Tensor& weight) {
      return ops::linear_cross_entropy(hidden, weight, t[2], t[3], -100, 0, 0, reduction).sum();
    };
    const auto all = torch::autograd::grad({loss(t[0], t[1])}, {t[0], t[1], t[3]});
    const auto lora = torch::autograd::grad({loss(t[0], t[1].detach())}, {t[0]});
    const auto head = torch::autograd::grad({loss(t[0].detach(), t[1])}, {t[1], t[3]});
    CHECK(close_to(all[0], lora[0], 1e-5));  // another order of sums
    CHECK(at::equal(all[1], head[0]));
    CHECK(at::equal(all[2], head[1]));
  }
}

TEST_CASE("a loss that is scaled, or differentiated twice over a kept graph", "[ops]") {
  torch::manual_seed(6);
  auto t = float_inputs({20, 8}, 30, true);
  const std::vector<at::Tensor> leaves = {t[0], t[1], t[3]};
  const auto make = [&] { return ops::linear_cross_entropy(t[0], t[1], t[2], t[3]); };
  const auto once = torch::autograd::grad({make()}, leaves);
  const at::Tensor loss = make();
  const auto first = torch::autograd::grad({loss * 3}, leaves, {}, /*retain_graph=*/true);
  const auto second = torch::autograd::grad({loss}, leaves, {}, /*retain_graph=*/true);
  const auto third = torch::autograd::grad({loss * 3}, leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    CHECK(close_to(first[i], once[i] * 3, 1e-6));
    CHECK(at::equal(second[i], once[i]));
    CHECK(at::equal(third[i], first[i]));
  }
}

TEST_CASE("losses have the same bits for any number of threads", "[ops]") {
  torch::manual_seed(5);
  // Products of small integers are exact: what differs would be ours.
  const at::Tensor hidden = at::randint(-3, 4, {64, 8}).to(at::kFloat);
  const at::Tensor weight = at::randint(-3, 4, {5003, 8}).to(at::kFloat).requires_grad_();
  const at::Tensor target = at::randint(5003, {64}, at::kLong);
  const auto losses = [&](int threads, const char* reduction) {
    at::set_num_threads(threads);
    return ops::linear_cross_entropy(hidden, weight, target, {}, -100, 0.1, 0.01, reduction);
  };
  const int before = at::get_num_threads();
  for (const char* reduction : {"none", "mean"})
    CHECK(at::equal(losses(1, reduction), losses(2, reduction)));
  at::set_num_threads(before);
}

#ifndef COSMOS_CUDA_EMULATION  // slow there, and allocations are the same
TEST_CASE("the workspace is less than a tenth of the logits", "[ops]") {
  torch::manual_seed(8);
  const auto check = [](int64_t tokens, int64_t classes, const char* reduction) {
    auto t = float_inputs({tokens, 4}, classes, false);
    const auto step = [&](const auto& op) {
      return peak_bytes([&] {
        const at::Tensor loss = op(t[0], t[1], t[2], std::nullopt, -100, 0, 0, reduction).sum();
        torch::autograd::grad({loss}, {t[0], t[1]});
      });
    };
    const int64_t logits = tokens * classes * 4, fused = step(ops::linear_cross_entropy);
    const int64_t plain = step(ops::reference::linear_cross_entropy);
    INFO(reduction << ": " << fused << " bytes, logits " << logits << ", plain formula " << plain);
    CHECK(fused < logits / 10);
    CHECK(fused < plain / 20);
  };
  check(6200, 1500, "mean");  // groups of tokens
  check(256, 40000, "none");  // groups of classes
}
#endif

TEST_CASE("linear cross-entropy refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor hidden = at::randn({2, 3, 4}), weight = at::randn({7, 4});
  const at::Tensor target = at::zeros({2, 3}, at::kLong);
  CHECK_THROWS_WITH(ops::linear_cross_entropy(hidden, at::randn({7, 5}), target),
                    Catch::Contains("weight: expected [V, 4]") && Catch::Contains("[7, 5]"));
  CHECK_THROWS_WITH(ops::linear_cross_entropy(hidden, weight, target.view({6})),
                    Catch::Contains("target: expected int64 [2, 3]") && Catch::Contains("[6]"));
  CHECK_THROWS_WITH(ops::linear_cross_entropy(hidden, weight, target.to(at::kFloat)),
                    Catch::Contains("target: expected int64") && Catch::Contains("float32"));
  CHECK_THROWS_WITH(ops::linear_cross_entropy(hidden, weight, target, at::zeros({6})),
                    Catch::Contains("bias: expected [7]") && Catch::Contains("[6]"));
  CHECK_THROWS_WITH(ops::linear_cross_entropy(hidden, weight.to(at::kDouble), target),
                    Catch::Contains("weight: expected float32") && Catch::Contains("float64"));
  CHECK_THROWS_WITH(ops::linear_cross_entropy(hidden, weight, target, {}, -100, 1.5),
                    Catch::Contains("label_smoothing: expected 0 to 1") && Catch::Contains("1.5"));
  CHECK_THROWS_WITH(
      ops::linear_cross_entropy(hidden, weight, target, {}, -100, 0, 0, "avg"),
      Catch::Contains("reduction: expected mean, sum or none") && Catch::Contains("avg"));
  CHECK_THROWS_WITH(ops::linear_log_probs(hidden, weight, target, {}, 0.),
                    Catch::Contains("temperature: expected more than 0, got 0"));
  CHECK_THROWS_AS(ops::linear_cross_entropy(hidden.to(at::kInt), weight.to(at::kInt), target),
                  Error);
}

TEST_CASE("a target that is no class is refused with its place", "[ops]") {
  auto t = float_inputs({6, 4}, 7, false);
  t[2][3] = 7;
  CHECK_THROWS_WITH(ops::linear_cross_entropy(t[0], t[1], t[2]),
                    Catch::Contains("target[3]: expected a class from 0 to 6, or ignore_index "
                                    "-100, got 7"));
  t[2][3] = -1;
  CHECK_THROWS_WITH(ops::linear_log_probs(t[0], t[1], t[2]), Catch::Contains("target[3]"));
  CHECK_NOTHROW(ops::linear_cross_entropy(t[0], t[1], t[2], {}, /*ignore_index=*/-1));
}

TEST_CASE("linear cross-entropy refuses second derivatives", "[ops]") {
  auto t = float_inputs({6, 4}, 7, false);
  for (const char* reduction : {"mean", "none"}) {
    const at::Tensor loss =
        ops::linear_cross_entropy(t[0], t[1], t[2], {}, -100, 0, 0, reduction).sum();
    CHECK_THROWS_WITH(torch::autograd::grad({loss}, {t[0]}, {}, true, /*create_graph=*/true),
                      Catch::Contains("no second derivative"));
  }
}

TEST_CASE("classes in ranges give the loss and gradients of all classes", "[ops]") {
  torch::manual_seed(5);
#ifdef COSMOS_CUDA_EMULATION  // the CUDA kernels have no float64
  const auto dtype = at::kFloat;
  const double tolerance = 1e-5;
#else
  const auto dtype = at::kDouble;
  const double tolerance = 1e-12;
#endif
  const at::Tensor hidden = at::randn({7, 6}, dtype).requires_grad_();
  const at::Tensor weight = at::randn({40, 6}, dtype).requires_grad_();
  at::Tensor target = at::randint(40, {7}, at::kLong), bias = at::randn({40}, dtype);
  target[3] = -1;
  bias.narrow(0, 10, 10).fill_(-std::numeric_limits<double>::infinity());  // a range without any
  target.masked_fill_(target.ge(10).logical_and(target.lt(20)), 4);
  const at::Tensor want = ops::linear_cross_entropy(hidden, weight, target, bias, -1, 0, 0.01);
  const auto want_grads = torch::autograd::grad({want}, {hidden, weight});

  const auto state_of = [&](int64_t r) {
    const at::Tensor own = target - 10 * r;
    return ops::driver::class_states(
        hidden.detach(), weight.detach().narrow(0, 10 * r, 10), bias.narrow(0, 10 * r, 10),
        own.masked_fill(own.lt(0).logical_or(own.ge(10)), 10).masked_fill(target.eq(-1), -1), -1, 1,
        false);
  };
  const at::Tensor states = at::stack({state_of(0), state_of(1), state_of(2), state_of(3)});
  at::Tensor hidden_grad = at::zeros_like(hidden);
  for (int64_t r = 0; r < 4; ++r) {
    const ops::ClassRange range{.first = 10 * r,
                                .classes = 40,
                                .gather = [&](const at::Tensor&) { return states; },
                                .sum = [](const at::Tensor& x) { return x; }};
    const at::Tensor rows = weight.detach().narrow(0, 10 * r, 10).clone().requires_grad_();
    const at::Tensor loss = ops::split_linear_cross_entropy(
        hidden, rows, target, bias.narrow(0, 10 * r, 10), range, -1, 0, 0.01);
    CHECK(close_to(loss.detach(), want.detach(), tolerance));
    const auto grads = torch::autograd::grad({loss}, {hidden, rows});
    hidden_grad += grads[0];
    CHECK(close_to(grads[1], want_grads[1].narrow(0, 10 * r, 10), tolerance));
  }
  CHECK(close_to(hidden_grad, want_grads[0], tolerance));
}
