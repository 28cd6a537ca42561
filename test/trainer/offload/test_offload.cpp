// What waits away from the device comes back as it was: activations, shards, optimiser state.

#include <catch2/catch.hpp>

#include "modules/core/token_plan.h"
#include "modules/registry.h"
#include "ops/core/peak_memory.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/loop/plan.h"
#include "trainer/loop/recompute.h"
#include "trainer/offload/activation_offload.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;

namespace {

std::shared_ptr<AwayMemory> memory(const std::string& place, const TempFolder& dir) {
  return make_away_memory(place, dir.path(), torch::kCPU);
}

struct Gradients {
  Tensor loss;
  Tensors all;
};

Gradients train(ToyModel& model, const Tensor& x) {
  model.zero_grad();
  Gradients found{.loss = model.forward(x).square().mean(), .all = {}};
  found.loss.backward();
  for (const Tensor& p : model.parameters()) found.all.push_back(p.grad().clone());
  return found;
}

}  // namespace

TEST_CASE("gradients are the same bits when activations wait elsewhere", "[offload]") {
  TempFolder dir;
  torch::manual_seed(3);
  ToyModel model({.width = 6, .layers = 4});
  const Tensor x = torch::randn({5, 6});
  const Gradients plain = train(model, x);
  const std::string place = GENERATE("host", "disk");
  const std::string recompute = GENERATE("none", "full", "selective");
  INFO(place << ", recompute " << recompute);
  const auto runner = std::make_shared<ActivationOffload>(
      memory(place, dir), make_recompute_runner(recompute, 2), /*min_bytes=*/0);
  model.set_block_runner(runner);
  for (int step = 0; step < 2; ++step) {
    const int64_t before = runner->moved_bytes();
    const Gradients away = train(model, x);
    CHECK(torch::equal(away.loss, plain.loss));
    REQUIRE(away.all.size() == plain.all.size());
    for (std::size_t i = 0; i < plain.all.size(); ++i)
      CHECK(torch::equal(away.all[i], plain.all[i]));
    // x, W1 x and tanh(W1 x) of every block; recomputed ones: x alone.
    const int64_t row = 5 * 6 * 4;
    const int64_t blocks = recompute == "none" ? 4 * 3 : recompute == "full" ? 4 : 2 + 2 * 3;
    CHECK(runner->moved_bytes() - before >= blocks * row);
  }
}

TEST_CASE("activations on a disk take no memory between forward and backward", "[offload]") {
  TempFolder dir;
  torch::manual_seed(4);
  ToyModel model({.width = 64, .layers = 16});
  const Tensor x = torch::randn({2048, 64});
  const auto bytes = static_cast<double>(peak_bytes([&] { train(model, x); }));
  model.set_block_runner(std::make_shared<ActivationOffload>(memory("disk", dir), nullptr));
  CHECK(static_cast<double>(peak_bytes([&] { train(model, x); })) < 0.3 * bytes);
}

TEST_CASE("what blocks share leaves once, and views come back as views", "[offload]") {
  TempFolder dir;
  torch::nn::Module block;
  const Tensor w = block.register_parameter("w", torch::randn({8, 8}));
  const Tensor shared = torch::randn({8, 8});
  ActivationOffload runner(memory("disk", dir), nullptr, 0);
  const modules::BlockFn fn = [&](const Tensors& in) -> Tensors {
    const auto parts = torch::matmul(in[0], w).chunk(2, -1);  // views of one storage
    return {torch::cat(
        {parts[0] * parts[1], parts[1].t().contiguous().t() * shared.narrow(1, 0, 4)}, 1)};
  };
  const auto run = [&](bool offload) {
    block.zero_grad();
    const Tensor x = torch::ones({8, 8}, torch::requires_grad());
    Tensor y = x;
    for (int i = 0; i < 3; ++i) y = offload ? runner.run("b", block, {y}, fn)[0] : fn({y})[0];
    y.sum().backward();
    return std::pair(x.grad(), w.grad().clone());
  };
  const auto plain = run(false), away = run(true);
  CHECK(torch::equal(plain.first, away.first));
  CHECK(torch::equal(plain.second, away.second));
  // A block saves its input and the product; the weight stays, `shared` goes once.
  const int64_t bytes = 8 * 8 * 4;
  CHECK(runner.moved_bytes() == 3 * 2 * bytes + bytes);
}

TEST_CASE("a disk that is full is an error that says where", "[offload]") {
  const auto full = make_away_memory("disk", "/dev/full/offload", torch::kCPU);
  CHECK_THROWS(full->empty({1024}, torch::kFloat32));
  TempFolder dir;
  const auto memory = make_away_memory("disk", dir.path(), torch::kCPU);
  CHECK_THROWS_WITH(memory->empty({int64_t{1} << 50}, torch::kFloat32),
                    Contains("trainer.offload_dir: " + dir.path().string()));
}

TEST_CASE("training with activations, shards and optimiser away is the same to the bit",
          "[offload]") {
  Runs runs;
  const Json base = {{"precision", "fp32"}, {"gradient_accumulation", 2}};
  // Large enough for the tensors to travel.
  const Json recipe = {{"data", {{"num_frames", 17}, {"height", 256}, {"width", 256}}},
                       {"model", {{"max_size", {16, 64, 64}}}}};
  const std::string place = GENERATE("host", "disk");
  const std::string moments = GENERATE("fp32", "int8");
  INFO(place << ", moments " << moments);
  Json plain = base;
  plain["optimizer"] = {{"moments", moments}};
  Json away = plain;
  away["activation_offload"] = place;
  away["parallel"] = {{"offload", place}};
  const Outcome here = runs.run("here", 2, plain, recipe);
  const Outcome there = runs.run("there", 2, away, recipe);
  check_same(there, here, 1e-300);
  const Json row = metrics_of(runs.dir("there")).back();
  const Json row_here = metrics_of(runs.dir("here")).back();
  CHECK(row.at("offloaded_bytes") > 0);
  CHECK(row.at("resident_bytes").get<int64_t>() + row.at("away_bytes").get<int64_t>() ==
        row_here.at("resident_bytes").get<int64_t>());
  CHECK(row.at("gathered_bytes") == row_here.at("gathered_bytes"));
}

TEST_CASE("one process that offloads trains as one that does not, and goes on as it", "[offload]") {
  Runs runs;
  const Outcome one = runs.run("one", 1, Json::object());
  const Json away = {{"parallel", {{"offload", "disk"}}}, {"activation_offload", "disk"}};
  check_same(runs.run("away", 1, away), one, 1e-9);
  const Json row = metrics_of(runs.dir("away")).back();
  CHECK(row.at("away_bytes") > row.at("resident_bytes"));
  // Stopped after three steps, and gone on without.
  Json first = away;
  first["steps"] = 3;
  REQUIRE(runs.start("parts", 1, first, Json::object()).code == 0);
  const Outcome rest = runs.run("parts", 1, Json::object());
  CHECK(worst(rest.weights, one.weights) < 1e-9);
}

TEST_CASE("the plan says what is away", "[offload]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  const int ranks = GENERATE(1, 2);
  Runs runs;
  const Json how = {{"precision", "fp32"},
                    {"gradient_accumulation", 1},
                    {"steps", 2},
                    {"ema", {{"kind", "none"}}},
                    {"activation_offload", "disk"},
                    {"parallel", {{"offload", "disk"}}}};
  // Large enough for the tensors to travel.
  const Json recipe = {{"data", {{"num_frames", 33}, {"height", 256}, {"width", 256}}},
                       {"model", {{"num_layers", 3}, {"max_size", {16, 64, 64}}}}};
  const Answer answer = runs.start("run", ranks, how, recipe);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Config config = load_config(runs.dir("run").string() + ".json", {});
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), ranks);
  const Json row = metrics_of(runs.dir("run")).back();
  CHECK(row.at("away_bytes").get<double>() == plan.away_bytes);
  CHECK(row.at("resident_bytes").get<double>() == plan.state_bytes());
  // Beside the blocks' activations those of stem and head that are large.
  CHECK(row.at("offloaded_bytes").get<double>() == Approx(plan.offloaded_bytes).epsilon(0.06));
  CHECK(plan.activation_bytes < 0.2 * plan.offloaded_bytes);
}
