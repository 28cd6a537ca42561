#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "modules/diffusion/sampler.h"
#include "modules/diffusion/scheduler_config.h"

namespace cosmos::modules {
namespace {

// The golden cases, or those that test/reference/sampler_proof.py has just written.
Json sampler_cases() {
  const char* given = std::getenv("COSMOS_SAMPLER_CASES");
  std::ifstream in(given ? given : COSMOS_SOURCE_DIR "/test/golden/samplers.json");
  return Json::parse(in);
}

Tensor as_tensor(const Json& list) {
  return torch::tensor(list.get<std::vector<double>>(), torch::kFloat64);
}

// The fixed "model" of sampler_proof.py.
Tensor feedback(const Tensor& x, int64_t step) {
  const Tensor j = torch::arange(x.numel(), torch::kFloat64);
  const Tensor out =
      (4.1 * j + 12.9 * static_cast<double>(step) + 1).sin() + x.to(torch::kFloat64).tanh() / 10;
  return out.to(x.scalar_type());
}

double distance(const Tensor& a, const Tensor& b) {
  const Tensor a64 = a.to(torch::kFloat64);
  return ((a64 - b).abs().max() / b.abs().max().clamp_min(1)).item<double>();
}

}  // namespace

TEST_CASE("every sampler takes the steps of its reference", "[diffusion][golden][sampler-golden]") {
  for (const Json& golden : sampler_cases()) {
    INFO(golden["name"].get<std::string>());
    auto sampler = make_sampler(golden["config"], golden["steps"]);
    CHECK(distance(as_tensor(Json(sampler->sigmas())), as_tensor(golden["sigmas"])) < 1e-6);
    CHECK(distance(as_tensor(Json(sampler->timesteps())), as_tensor(golden["timesteps"])) < 1e-6);
    Tensor x = (torch::arange(3, torch::kFloat64) * 1.7 + 0.3).cos() * sampler->initial_scale();
    x = x.to(torch::kFloat32);
    for (int64_t i = 0; i < sampler->steps(); ++i) {
      x = sampler->step(feedback(x, i), x);
      CHECK(distance(x, as_tensor(golden["trajectory"][i])) < 1e-5);
    }
    CHECK_THROWS_AS(sampler->step(x, x), Error);
  }
}

// As NVIDIA writes a student's steps: angles t of x = cos(t) x0 + sin(t) n, the network fed
// x / (cos t + sin t) and sin t / (cos t + sin t).
TEST_CASE("a distilled model takes the steps of the trigonometric flow", "[diffusion]") {
  const auto double_of = [](int64_t i) {
    return (1.3 * torch::arange(5, torch::kFloat64) + static_cast<double>(i)).sin();
  };
  const auto velocity = [&](const Tensor& input, double time) {
    return (input * (2 + time)).tanh() - time * double_of(3);
  };
  const std::vector<double> angles = {M_PI / 2, std::atan(15.0), std::atan(5.0), std::atan(5.0 / 3),
                                      0};
  const Tensor noise = double_of(1);
  for (const int64_t steps : {1, 2, 4}) {
    std::vector<double> t(angles.begin(), angles.begin() + steps);
    t.push_back(0);
    Tensor want = noise;
    for (int64_t i = 0; i < steps; ++i) {
      const double sum = std::cos(t[i]) + std::sin(t[i]);
      const Tensor v = velocity(want / sum, std::sin(t[i]) / sum);
      const Tensor x0 = want / sum - std::sin(t[i]) / sum * v;
      want = t[i + 1] > 0 ? std::cos(t[i + 1]) * x0 + std::sin(t[i + 1]) * noise : x0;
    }
    const auto sampler = make_sampler(scheduler_json(DistilledConfig{}), steps);
    REQUIRE(sampler->steps() == steps);
    Tensor x = noise * sampler->initial_scale();
    for (const double sigma : sampler->levels()) x = sampler->step(velocity(x, sigma), x);
    CHECK(torch::allclose(x, want, 1e-12, 1e-12));
  }
  const std::vector<double> eight = make_sampler(scheduler_json(DistilledConfig{}), 8)->sigmas();
  CHECK(eight[0] == 1);
  CHECK(eight[1] == Approx(5 * 0.875 / 4.5));
  CHECK(make_sampler(scheduler_json(DistilledConfig{}), 4)->timesteps()[1] == Approx(937.5));
}

TEST_CASE("a one-step model's first clean latents are the clip", "[diffusion]") {
  const auto sampler = make_sampler(scheduler_json(OneStepConfig{}), 1);
  CHECK(sampler->initial_scale() == 80);
  CHECK(sampler->sigmas() == std::vector<double>{80, 0});
  const Tensor x0 = torch::linspace(-1, 1, 7);
  CHECK(sampler->step_x0(x0, torch::full({7}, 40.0)).equal(x0));
  CHECK_THROWS_WITH(make_sampler(scheduler_json(OneStepConfig{}), 4),
                    Catch::Contains("takes one step, got 4"));
}

TEST_CASE("every sampler lands on the data when the model knows it", "[diffusion]") {
  const Tensor x0 = torch::linspace(-1, 1, 7);
  std::vector<Json> configs = {scheduler_json(predict25_scheduler(false)),
                               scheduler_json(predict25_scheduler(true)),
                               scheduler_json(EdmEulerConfig{}),
                               scheduler_json(FlowMatchEulerConfig{.shift = 3}),
                               scheduler_json(Res2abConfig{}),
                               scheduler_json(DistilledConfig{})};
  for (const Json& config : configs) {
    INFO(config.dump());
    auto sampler = make_sampler(config, 6);
    Tensor x = torch::full({7}, 0.5) * sampler->initial_scale();
    while (sampler->position() < sampler->steps()) x = sampler->step_x0(x0, x);
    CHECK(distance(x, x0.to(torch::kFloat64)) < 1e-4);
  }
}

TEST_CASE("NVIDIA's levels start below one and times are truncated", "[diffusion]") {
  auto sampler = make_nvidia_sampler(scheduler_json(predict25_scheduler(false)), 35);
  REQUIRE(sampler->steps() == 35);
  CHECK(sampler->sigmas()[0] == Approx(5 * 0.999 / (1 + 4 * 0.999)));
  CHECK(make_nvidia_sampler(scheduler_json(predict25_scheduler(true)), 35)->steps() == 36);
  CHECK(sampler->timesteps()[1] == std::floor(1000 * sampler->sigmas()[1]));
}

TEST_CASE("a scheduler setting that no release uses is refused by name", "[diffusion]") {
  UniPcConfig config = predict25_scheduler(false);
  config.use_dynamic_shifting = true;
  CHECK_THROWS_WITH(
      make_sampler(scheduler_json(config), 4, "pipe/scheduler"),
      "pipe/scheduler: use_dynamic_shifting is not supported; no Cosmos release uses it");
  config = predict25_scheduler(true);
  config.sigma_max.reset();
  CHECK_THROWS_WITH(make_sampler(scheduler_json(config), 4),
                    Catch::Contains("sigma_max must be set"));
  CHECK_THROWS_WITH(make_sampler(Json{{"_class_name", "UniPCMultistepSchedule"}}, 4),
                    Catch::Contains("did you mean UniPCMultistepScheduler?"));
  CHECK_THROWS_AS(make_sampler(scheduler_json(EdmEulerConfig{}), 0), Error);
}

}  // namespace cosmos::modules
