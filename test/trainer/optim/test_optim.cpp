#include <catch2/catch.hpp>

#include "trainer/optim/adamw.h"
#include "trainer/optim/copy_tensors.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/schedule.h"

using namespace cosmos;
using namespace cosmos::trainer;

namespace {

// One AdamW update as the paper writes it, in double.
struct Reference {
  Tensor w, m, v;
  int64_t t = 0;
  explicit Reference(const Tensor& start)
      : w(start.to(torch::kDouble)), m(torch::zeros_like(w)), v(torch::zeros_like(w)) {}
  void step(const Tensor& grad, double lr, const OptimizerConfig& c, double decay) {
    const Tensor g = grad.to(torch::kDouble);
    ++t;
    m = c.betas[0] * m + (1 - c.betas[0]) * g;
    v = c.betas[1] * v + (1 - c.betas[1]) * g * g;
    const Tensor m_hat = m / (1 - std::pow(c.betas[0], t)),
                 v_hat = v / (1 - std::pow(c.betas[1], t));
    w = w * (1 - lr * decay) - lr * m_hat / (v_hat.sqrt() + c.eps);
  }
};

const Tensor kFinite = torch::zeros({});

}  // namespace

TEST_CASE("AdamW follows the paper, with decay on matrices only and clipping by global norm",
          "[optim]") {
  torch::manual_seed(1);
  const OptimizerConfig config{.betas = {0.9, 0.99}, .weight_decay = 0.3};
  Tensor matrix = torch::randn({5, 3}, torch::requires_grad());
  Tensor vector = torch::randn({4}, torch::requires_grad());
  Tensor unused = torch::ones({2}, torch::requires_grad());
  AdamW optimizer({{"matrix", matrix}, {"vector", vector}, {"unused", unused}}, config);
  Reference m(matrix.detach()), v(vector.detach());
  for (int i = 0; i < 4; ++i) {
    const Tensor gm = torch::randn({5, 3}) * 3, gv = torch::randn({4}) * 3;
    matrix.mutable_grad() = gm.clone();
    vector.mutable_grad() = gv.clone();
    const double norm = torch::cat({gm.flatten(), gv}).norm().item<double>();
    CHECK(optimizer.step(0.01, 1.0, kFinite).item<double>() == Approx(norm));
    m.step(gm / std::max(norm, 1.0), 0.01, config, 0.3);
    v.step(gv / std::max(norm, 1.0), 0.01, config, 0.0);
    CHECK(!matrix.grad().defined());
  }
  CHECK(torch::allclose(matrix.to(torch::kDouble), m.w, 1e-5, 1e-6));
  CHECK(torch::allclose(vector.to(torch::kDouble), v.w, 1e-5, 1e-6));
  CHECK(torch::equal(unused, torch::ones({2})));
}

TEST_CASE("A gradient or loss that is not finite changes nothing", "[optim]") {
  Tensor w = torch::ones({3}, torch::requires_grad());
  AdamW optimizer({{"w", w}}, {});
  TensorMap before;
  for (const auto& [name, tensor] : optimizer.state()) before[name] = tensor.clone();
  const auto unchanged = [&] {
    bool same = torch::equal(w, torch::ones({3}));
    for (const auto& [name, tensor] : optimizer.state())
      same &= torch::equal(tensor, before.at(name));
    return same;
  };
  w.mutable_grad() = torch::full({3}, std::nan(""));
  optimizer.step(0.1, 1.0, kFinite);
  CHECK(unchanged());
  w.mutable_grad() = torch::ones({3});
  optimizer.step(0.1, 0.0, torch::full({}, INFINITY));
  CHECK(unchanged());
}

TEST_CASE("bf16 weights follow float32 masters that see small updates", "[optim]") {
  Tensor w = torch::ones({4, 4}).to(torch::kBFloat16).set_requires_grad(true);
  AdamW optimizer({{"w", w}}, {.weight_decay = 0});
  for (int i = 0; i < 100; ++i) {
    // Two micro-batches whose sum bf16 could not hold.
    w.mutable_grad() = torch::full({4, 4}, 1.0, torch::kBFloat16);
    optimizer.collect_gradients();
    w.mutable_grad() = torch::full({4, 4}, 1.0 / 1024, torch::kBFloat16);
    optimizer.collect_gradients();
    CHECK(optimizer.masters()[0].second.grad()[0][0].item<float>() == 1.0f + 1.0f / 1024);
    optimizer.step(1e-4, 0, kFinite);  // each step is below bf16's resolution at 1
  }
  CHECK(w[0][0].item<float>() == Approx(0.99).margin(0.004));
  CHECK(optimizer.masters()[0].second[0][0].item<float>() == Approx(0.99).margin(1e-4));
  CHECK(optimizer.state().count("master.w") == 1);
}

TEST_CASE("8-bit moments go on from their state bit by bit", "[optim]") {
  torch::manual_seed(5);
  const OptimizerConfig config{.moments = "int8"};
  Tensor w = torch::randn({40, 17}, torch::requires_grad());
  const Tensor fit = torch::randn({40, 17});
  AdamW optimizer({{"w", w}}, config);
  const auto steps = [&](AdamW& adamw, Tensor& x, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) {
      torch::manual_seed(static_cast<uint64_t>(100 + i));
      x.mutable_grad() = x.detach() - fit + torch::randn_like(fit);
      adamw.step(0.01, 0, kFinite);
    }
  };
  steps(optimizer, w, 0, 5);
  TensorMap state;
  for (const auto& [key, tensor] : optimizer.state()) state[key] = tensor.clone();
  Tensor again = w.detach().clone().requires_grad_();
  steps(optimizer, w, 5, 5);
  AdamW resumed({{"w", again}}, config);
  resumed.load_state(state, "state");
  steps(resumed, again, 5, 5);
  CHECK(torch::equal(again, w));
  CHECK(state.at("exp_avg.w").scalar_type() == torch::kFloat32);
  // Moments of float32 are taken over, too.
  AdamW wide({{"w", again}}, {});
  wide.load_state(resumed.state(), "state");
  CHECK(torch::equal(wide.state().at("exp_avg_sq.w"), resumed.state().at("exp_avg_sq.w")));
}

TEST_CASE("The learning rate warms up and falls as configured", "[optim]") {
  const ScheduleConfig cosine{.kind = "cosine", .warmup_steps = 4, .min_factor = 0.1};
  CHECK(lr_factor(cosine, 104, 0) == Approx(0.25));
  CHECK(lr_factor(cosine, 104, 3) == Approx(1.0));
  CHECK(lr_factor(cosine, 104, 4) == Approx(1.0));
  CHECK(lr_factor(cosine, 104, 54) == Approx(0.55));
  CHECK(lr_factor(cosine, 104, 104) == Approx(0.1));
  CHECK(lr_factor(cosine, 104, 500) == Approx(0.1));
  const ScheduleConfig linear{.kind = "linear", .decay_steps = 50};
  CHECK(lr_factor(linear, 1000, 25) == Approx(0.5));
  CHECK(lr_factor(linear, 1000, 60) == 0);
  CHECK(lr_factor({.kind = "constant"}, 10, 9) == 1);
}

TEST_CASE("Averages: constant decay, and the power law of Karras et al.", "[optim]") {
  // Relative width of the profile t^g is sqrt(g + 1) / ((g + 2) sqrt(g + 3)).
  const double g = power_ema_exponent(0.1);
  CHECK(std::sqrt(g + 1) / ((g + 2) * std::sqrt(g + 3)) == Approx(0.1));
  CHECK(g == Approx(6.94).margin(0.01));
  const EmaConfig power{.kind = "power", .rate = 0.1};
  CHECK(ema_beta(power, 0) == 0);
  CHECK(ema_beta(power, 99) == Approx(std::pow(0.99, g + 1)));

  Tensor w = torch::zeros({2}, torch::requires_grad());
  AdamW optimizer({{"w", w}}, {});
  Ema ema({.kind = "constant", .decay = 0.75}, optimizer.masters(), {{"w", w}});
  w.mutable_grad() = torch::full({2}, -1.0);
  optimizer.step(1.0, 0, kFinite, ema.next(0));  // the first step of Adam has length lr
  CHECK(w[0].item<float>() == Approx(1.0f));
  CHECK(ema.averages().at("w")[0].item<float>() == Approx(0.25f));
  {
    Ema::Use use(&ema);
    CHECK(w[0].item<float>() == Approx(0.25f));
  }
  CHECK(w[0].item<float>() == Approx(1.0f));
  CHECK(w.requires_grad());
}

TEST_CASE("copy_tensors refuses another set of tensors and changes nothing", "[optim]") {
  const TensorMap to = {{"a", torch::zeros({2})}, {"b", torch::zeros({3})}};
  const TensorMap from = {{"a", torch::ones({4})}, {"c", torch::ones({3})}};
  try {
    copy_tensors(from, to, "x.safetensors");
    FAIL("expected an error");
  } catch (const Error& error) {
    CHECK_THAT(error.what(),
               Catch::Contains("x.safetensors: does not fit this run; 1 missing: b; 1 "
                               "unexpected: c; 1 of another shape: a"));
  }
  CHECK(to.at("a").sum().item<float>() == 0);
}

TEST_CASE("a learning rate is scaled by the longest prefix of a parameter's name", "[optim]") {
  const OptimizerConfig config{.weight_decay = 0,
                               .lr_scale = {{"visual.", 0.5}, {"visual.merger.", 0}}};
  std::vector<Tensor> weights;
  for (int i = 0; i < 3; ++i) weights.push_back(torch::zeros({2}, torch::requires_grad()));
  AdamW optimizer(
      {{"text.w", weights[0]}, {"visual.w", weights[1]}, {"visual.merger.w", weights[2]}}, config);
  for (Tensor& weight : weights) weight.mutable_grad() = torch::ones({2});
  optimizer.step(0.1, 0, kFinite);
  CHECK(weights[0][0].item<double>() == Approx(-0.1));
  CHECK(weights[1][0].item<double>() == Approx(-0.05));
  CHECK(weights[2][0].item<double>() == 0);
  CHECK_THROWS_WITH(AdamW({{"text.w", weights[0]}}, config),
                    Catch::Matchers::Contains("lr_scale.visual.") &&
                        Catch::Matchers::Contains("no trained parameter"));
}
