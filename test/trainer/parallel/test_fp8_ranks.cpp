// 8-bit products on several ranks against one process, from real processes over Gloo.

#include <catch2/catch.hpp>

#include "modules/registry.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::trainer;
using namespace cosmos::test;

namespace {

/// Sides that 16 divides, more than one block of 128 numbers, rows that begin within a block.
const Json kModel = {
    {"model", {{"attention_head_dim", 72}, {"text_embed_dim", 16}, {"mlp_ratio", 2.0}}}};

Json how(const Json& fp8, int64_t micro_batches) {
  return {{"precision", "fp8"},
          {"fp8", fp8},
          {"steps", 4},
          {"clip_norm", 0},
          {"gradient_accumulation", micro_batches}};
}

void check_equal(const Outcome& ours, const Outcome& one) {
  CHECK(ours.losses == one.losses);
  REQUIRE(ours.weights.size() == one.weights.size());
  for (const auto& [name, weight] : one.weights) {
    INFO(name);
    CHECK(torch::equal(ours.weights.at(name), weight));
  }
}

}  // namespace

TEST_CASE("ranks that gather in 8 bits have the bits of those that gather in bf16",
          "[parallel][fp8]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  const auto [fp8, more] = GENERATE(table<Json, Json>({
      {{{"scaling", "current"}}, Json::object()},
      {{{"scaling", "delayed"}}, Json::object()},
      {{{"scaling", "block"}, {"gradient", "e4m3"}}, Json::object()},
      {{{"scaling", "current"}}, {{"lora", {{"rank", 4}}}}},
  }));
  Json recipe = kModel;
  recipe.update(more);
  INFO(fp8.dump() << more.dump());
  Runs runs;
  const auto run = [&](const std::string& name, int ranks, const Json& settings) {
    Json trainer = how(settings, 2 / ranks);
    if (name == "narrow") trainer["activation_checkpointing"] = "full";
    if (name == "away") trainer["parallel"] = {{"offload", "disk"}};
    const auto answer =
        runs.start(name, ranks, trainer, recipe, ranks > 1 ? "export COSMOS_TEST_DELAY=3" : "");
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    return Runs::read(runs.dir(name), 4);
  };
  const Outcome one = run("one", 1, fp8);
  CHECK(one.losses.front() != one.losses.back());
  Json wide = fp8;
  wide["gather"] = false;
  const Outcome two = run("wide", 2, wide);
  check_equal(run("narrow", 2, fp8), two);
  check_equal(run("away", 2, fp8), two);
  // Gradients of what several blocks share are added in another order, in bfloat16.
  CHECK(worst(two.losses, one.losses) < 0.03);

  // Half of what bf16 moves, but for what is not a weight of a block's products.
  const double narrow = metrics_of(runs.dir("narrow"))[1].at("gathered_bytes");
  const double whole = metrics_of(runs.dir("wide"))[1].at("gathered_bytes");
  CHECK(narrow < 0.75 * whole);
  for (const auto& [name, moved] : {std::pair("narrow", narrow), std::pair("wide", whole)}) {
    const Config config = load_config(runs.dir(name).string() + ".json", {});
    const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), 2);
    INFO(name);
    CHECK(moved == plan.gather_traffic);
    CHECK(metrics_of(runs.dir(name))[1].at("resident_bytes").get<double>() == plan.state_bytes());
  }
}

TEST_CASE("slices of 8-bit products train as one process does, but for scales", "[parallel][fp8]") {
  Runs runs;
  const Json fp8 = {{"scaling", "current"}};
  const auto run = [&](const std::string& name, int ranks, const Json& parallel) {
    Json trainer = how(fp8, 2);
    trainer["parallel"] = parallel;
    const auto answer = runs.start(name, ranks, trainer, kModel);
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    return Runs::read(runs.dir(name), 4);
  };
  const Outcome one = run("one", 1, Json::object());
  const Outcome two = run("two", 2, {{"tensor", 2}});
  CHECK(worst(two.losses, one.losses) < 0.04);
  CHECK(two.losses != one.losses);
}
