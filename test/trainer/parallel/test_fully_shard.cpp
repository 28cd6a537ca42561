// Fully sharded training against one process: the same losses and the same weights, from real
// processes over Gloo.

#include <catch2/catch.hpp>
#include <fstream>

#include "modules/core/hollow.h"
#include "modules/registry.h"
#include "ops/core/peak_memory.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::trainer;
using namespace cosmos::test;
namespace fs = std::filesystem;

TEST_CASE("sharded ranks train as one process does", "[parallel]") {
  Runs runs;
  const Outcome one = runs.run("one", 1, Json::object());
  CHECK(one.losses.front() != one.losses.back());
  SECTION("two ranks, two micro-batches each") {
    check_same(runs.run("two", 2, {{"gradient_accumulation", 2}}), one, 1e-9);
  }
  SECTION("four ranks, blocks kept from forward to backward") {
    check_same(
        runs.run("four", 4,
                 {{"gradient_accumulation", 1}, {"parallel", {{"reshard_after_forward", false}}}}),
        one, 1e-9);
  }
  SECTION("two replicas of two shards, with recomputed blocks") {
    check_same(runs.run("hsdp", 4,
                        {{"gradient_accumulation", 1},
                         {"activation_checkpointing", "full"},
                         {"parallel", {{"replica", 2}}}}),
               one, 1e-9);
  }
}

TEST_CASE("sharded ranks train an adapter as one process does", "[parallel]") {
  Runs runs;
  const Json lora = {{"lora", {{"rank", 3}, {"dropout", 0.1}}}};
  for (const char* recompute : {"none", "full"}) {
    const Json how = {{"activation_checkpointing", recompute}};
    const Outcome one = runs.run(std::string("one-") + recompute, 1, how, lora);
    Json half = how;
    half["gradient_accumulation"] = 2;
    check_same(runs.run(std::string("two-") + recompute, 2, half, lora), one, 1e-9);
  }
}

TEST_CASE("ranks take their parts of a model folder, none holds it whole", "[parallel]") {
  Runs runs;
  const Outcome first = runs.run("first", 1, Json::object());
  const std::string folder = runs.dir("first") / "checkpoints" / "step-00000006" / "model";
  for (const char* kind : {"full", "lora"}) {
    Json recipe = {{"model", {{"path", folder}}}};
    if (std::string(kind) == "lora") recipe["lora"] = {{"rank", 3}};
    const Outcome one = runs.run(std::string("one-") + kind, 1, Json::object(), recipe);
    CHECK(one.losses.front() != first.losses.front());
    const Json split = {{"gradient_accumulation", 2}, {"parallel", {{"tensor", 2}}}};
    check_same(runs.run(std::string("two-") + kind, 2, {{"gradient_accumulation", 2}}, recipe), one,
               1e-9);
    check_same(runs.run(std::string("four-") + kind, 4, split, recipe), one, 1e-9);
  }
}

TEST_CASE("while it builds the model a rank holds far fewer bytes than the model", "[parallel]") {
  Runs runs;
  Json recipe = {{"model", {{"num_layers", 12}}}};
  if (GENERATE(false, true)) recipe["lora"] = {{"rank", 3}};
  const Json how = {{"precision", "fp32"},
                    {"steps", 1},
                    {"ema", {{"kind", "none"}}},
                    {"optimizer", {{"moments", "int8"}}}};
  INFO(recipe.dump());
  const auto peak_of = [&](const std::string& name, int ranks) {
    const std::string file = runs.dir(name).string() + ".peak";
    Json part = how;
    part["gradient_accumulation"] = 4 / ranks;
    const Answer answer =
        runs.start(name, ranks, part, recipe, "export COSMOS_TEST_PEAK='" + file + "'");
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    double most = 0, bytes = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      std::ifstream(file + std::to_string(rank)) >> bytes;
      REQUIRE(bytes > 0);
      most = std::max(most, bytes);
    }
    return most;
  };
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  const Config config = parse_config(config_json(how, recipe), "test");
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"));
  const double whole = 4 * static_cast<double>(plan.parameters);
  CHECK(peak_of("one", 1) > whole);
  CHECK(peak_of("four", 4) < 0.5 * whole);
}

TEST_CASE("a model without weights takes no bytes until it is filled", "[parallel]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  const Config config = parse_config(config_json(Json::object(), Json::object()), "test");
  torch::manual_seed(5);
  const auto recipe = make_recipe(config.recipe, "recipe");
  std::shared_ptr<modules::Model> model;
  CHECK(peak_bytes([&] { model = recipe->model_without_weights(); }) < 64);  // a seed is drawn
  REQUIRE(model != nullptr);
  for (const auto& item : model->named_parameters()) {
    INFO(item.key());
    CHECK(modules::is_hollow(item.value()));
  }
  TensorMap given;
  recipe->read_weights([&](const std::string& name, const Tensor& whole) { given[name] = whole; });
  torch::manual_seed(5);
  const auto whole = make_recipe(config.recipe, "recipe")->model();
  REQUIRE(given.size() == whole->named_parameters().size());
  for (const auto& item : whole->named_parameters()) {
    INFO(item.key());
    CHECK(torch::equal(given.at(item.key()), item.value()));
  }
}

TEST_CASE("bf16 ranks keep float32 masters and go on from one process", "[parallel]") {
  Runs runs;
  const Json bf16 = {{"precision", "bf16"}};
  const Outcome one = runs.run("one", 1, bf16);
  const Outcome two = runs.run("two", 2, {{"precision", "bf16"}, {"gradient_accumulation", 2}});
  CHECK(worst(two.losses, one.losses) < 0.02);
  CHECK(two.optimizer.count("master.proj_out.weight") == 1);
  CHECK(two.optimizer.size() == one.optimizer.size());
}

TEST_CASE("a checkpoint of two ranks goes on with any number of them", "[parallel]") {
  Runs runs;
  const Outcome one = runs.run("whole", 1, Json::object());
  const Json half = {{"gradient_accumulation", 2}, {"save_every", 3}, {"keep_checkpoints", 0}};
  runs.run("two", 2, half);
  for (const int ranks : {1, 4}) {
    fs::remove_all(runs.dir("two") / "checkpoints" / "step-00000006");
    check_same(runs.run("two", ranks, {{"gradient_accumulation", 4 / ranks}}), one, 1e-9);
  }
  // Loading gathers nothing: the first step after it moves as much as the others.
  std::ifstream metrics(runs.dir("two") / "metrics.jsonl");
  std::vector<Json> gathered;
  for (std::string line; std::getline(metrics, line);)
    gathered.push_back(Json::parse(line).at("gathered_bytes"));
  REQUIRE(gathered.size() == 6);
  CHECK(gathered[3] == gathered[5]);
}

TEST_CASE("ranks with 8-bit moments go on from a checkpoint bit by bit", "[parallel]") {
  Runs runs;
  const Json how = {{"precision", "fp32"},
                    {"gradient_accumulation", 2},
                    {"optimizer", {{"moments", "int8"}}},
                    {"save_every", 3},
                    {"keep_checkpoints", 0}};
  const Outcome through = runs.run("two", 2, how);
  fs::remove_all(runs.dir("two") / "checkpoints" / "step-00000006");
  const Outcome resumed = runs.run("two", 2, how);
  for (const auto& [name, weight] : through.weights)
    CHECK(torch::equal(weight, resumed.weights.at(name)));
}

TEST_CASE("what ranks hold and move is what the plan says", "[parallel]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  test::register_latent_clips();
  const auto [ranks, trainer, recipe] = GENERATE(table<int, Json, Json>({
      {2, {{"gradient_accumulation", 2}}, Json::object()},
      {4, {{"gradient_accumulation", 1}}, Json::object()},
      {4, {{"gradient_accumulation", 1}, {"parallel", {{"replica", 2}}}}, Json::object()},
      {2, {{"precision", "bf16"}, {"gradient_accumulation", 2}}, Json::object()},
      {2, {{"gradient_accumulation", 2}, {"optimizer", {{"moments", "int8"}}}}, Json::object()},
      {2,
       {{"gradient_accumulation", 2}, {"parallel", {{"reshard_after_forward", false}}}},
       Json::object()},
      {2, {{"gradient_accumulation", 2}}, {{"lora", {{"rank", 3}}}}},
  }));
  Json how = {{"precision", "fp32"}};
  how.update(trainer);
  INFO(ranks << " ranks, " << how.dump() << recipe.dump());
  Runs runs;
  runs.run("run", ranks, how, recipe);
  const Config config = load_config(runs.dir("run").string() + ".json", {});
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), ranks);
  std::ifstream metrics(runs.dir("run") / "metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) {
    const Json row = Json::parse(line);
    INFO("step " << row.at("step"));
    // A block's last scale is of fewer than 256 elements: up to two numbers a parameter more.
    const double rest = how.contains("optimizer") ? 8.0 * 60 : 0;
    CHECK(std::abs(row.at("resident_bytes").get<double>() - plan.state_bytes()) <= rest);
    CHECK(row.at("gathered_bytes").get<double>() == plan.gather_traffic);
    CHECK(row.at("reduced_bytes").get<double>() == plan.reduce_traffic);
  }
}

TEST_CASE("after a rank was killed all start again, and end with the same bits", "[parallel]") {
  Runs runs;
  const Json how = {{"precision", "fp32"},
                    {"gradient_accumulation", 2},
                    {"save_every", 2},
                    {"checkpoint", {{"background", false}}}};  // so that step 2 is there at step 3
  const Outcome undisturbed = runs.run("undisturbed", 2, how);
  const int victim = GENERATE(0, 1);
  const std::string mark = (runs.dir("mark")).string();
  const auto answer = runs.start("killed", 2, how, Json::object(),
                                 "export COSMOS_TEST_RESTARTS=2 COSMOS_TEST_KILL='" +
                                     std::to_string(victim) + " 3 " + mark + "'");
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  CHECK_THAT(answer.text, Catch::Contains("rank " + std::to_string(victim)) &&
                              Catch::Contains("killed by signal 9") &&
                              Catch::Contains("restart 1 of 2, from step 2"));
  const Outcome outcome = Runs::read(runs.dir("killed"));
  CHECK(outcome.losses == undisturbed.losses);
  for (const auto& [name, weight] : undisturbed.weights)
    CHECK(torch::equal(weight, outcome.weights.at(name)));
}

TEST_CASE("ranks that die without getting on are not started for ever", "[parallel]") {
  Runs runs;
  const auto answer =
      runs.start("doomed", 2, {{"precision", "fp32"}, {"gradient_accumulation", 2}}, Json::object(),
                 "export COSMOS_TEST_RESTARTS=9 COSMOS_TEST_KILL='1 1 never'");
  INFO(answer.text);
  CHECK(answer.code == 137);
  CHECK_THAT(answer.text, Catch::Contains("restart 1 of 9, from the beginning") &&
                              Catch::Contains("not restarted: no newer checkpoint") &&
                              !Catch::Contains("restart 2"));
}
