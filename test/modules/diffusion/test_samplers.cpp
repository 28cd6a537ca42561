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

TEST_CASE("every sampler lands on the data when the model knows it", "[diffusion]") {
  const Tensor x0 = torch::linspace(-1, 1, 7);
  std::vector<Json> configs = {
      scheduler_json(predict25_scheduler(false)), scheduler_json(predict25_scheduler(true)),
      scheduler_json(EdmEulerConfig{}), scheduler_json(FlowMatchEulerConfig{.shift = 3}),
      scheduler_json(Res2abConfig{})};
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
