// Tensor and sequence parallel training against one process: the same losses and the same weights,
// from real processes over Gloo.

#include <catch2/catch.hpp>

#include "modules/dit/parallel_plan.h"
#include "modules/dit/transformer.h"
#include "modules/registry.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/parallel/tensor_parallel.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::trainer;
using namespace cosmos::test;
namespace fs = std::filesystem;

namespace {

const Json kFull = Json::object();
const Json kLora = {{"lora", {{"rank", 3}}}};
/// Masks are of whole inputs: those of split features and tokens, and of text that all ranks have.
const Json kDropped = {
    {"lora",
     {{"rank", 3},
      {"dropout", 0.3},
      {"target_modules",
       {"to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "linear_1", "proj_out"}}}}};
const std::string kDelay = "export COSMOS_TEST_DELAY=1";

Json parallel(int64_t tensor, bool sequence, int64_t accumulation, const Json& more = kFull) {
  Json trainer = {{"gradient_accumulation", accumulation},
                  {"parallel", {{"tensor", tensor}, {"sequence", sequence}}}};
  trainer.update(more, /*merge_objects=*/true);
  return trainer;
}

struct Layout {
  std::string name;
  int ranks;
  Json trainer, recipe;
  double tolerance = 1e-9;
};

/// On a group that delays and spoils.
void check_layout(Runs& runs, const Layout& layout, const Outcome& one) {
  INFO(layout.name << ": " << layout.trainer.dump() << layout.recipe.dump());
  const auto answer = runs.start(layout.name, layout.ranks, layout.trainer, layout.recipe, kDelay);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  check_same(Runs::read(runs.dir(layout.name)), one, layout.tolerance);
}

}  // namespace

TEST_CASE("slices of a model train as one process does", "[parallel][tensor]") {
  Runs runs;
  SECTION("two slices of two shards, tokens split, blocks recomputed") {
    const Json more = {{"activation_checkpointing", "full"}};
    check_layout(runs, {"mixed", 4, parallel(2, true, 2, more), kFull}, runs.run("one", 1, kFull));
  }
  SECTION("two slices with whole tokens, an adapter") {
    check_layout(runs, {"lora", 2, parallel(2, false, 4), kLora}, runs.run("one", 1, kFull, kLora));
  }
  SECTION("an adapter's dropout, tokens whole and split") {
    const Outcome one = runs.run("one", 1, kFull, kDropped);
    CHECK(worst(one.losses, runs.run("kept", 1, kFull, kLora).losses) > 1e-6);
    check_layout(runs, {"whole", 2, parallel(2, false, 4), kDropped}, one);
    check_layout(runs, {"split", 4, parallel(2, true, 2), kDropped}, one);
  }
}

TEST_CASE("every layout with slices trains as one process does", "[.][tensor-all]") {
  Runs runs;
  const Json targets = {"to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"};
  const Json dora = {{"lora", {{"rank", 3}, {"use_dora", true}, {"target_modules", targets}}}};
  const Json learnable = {{"model", {{"extra_pos_embed_type", "learnable"}}}};
  // Learnable positions are float32 in any precision, and so are DoRA's row norms.
  for (const auto& [recipe, tolerance] :
       {std::pair(kFull, 1e-9), std::pair(kLora, 1e-9), std::pair(kDropped, 1e-9),
        std::pair(learnable, 1e-6), std::pair(dora, 1e-5)}) {
    const std::string kind = recipe.dump();
    const Outcome one =
        runs.run("one" + std::to_string(std::hash<std::string>()(kind)), 1, kFull, recipe);
    for (const bool sequence : {true, false})
      for (const char* recompute : {"none", "full"}) {
        const Json how = {{"activation_checkpointing", recompute}};
        const std::string name = (sequence ? "sequence-" : "whole-") + std::string(recompute) +
                                 "-" + std::to_string(std::hash<std::string>()(kind));
        check_layout(runs, {name + "-2", 2, parallel(2, sequence, 4, how), recipe, tolerance}, one);
        check_layout(runs, {name + "-2x2", 4, parallel(2, sequence, 2, how), recipe, tolerance},
                     one);
        Json replicas = how;
        replicas["parallel"] = {{"replica", 2}};
        check_layout(runs,
                     {name + "-replicas", 4, parallel(2, sequence, 2, replicas), recipe, tolerance},
                     one);
      }
  }
}

TEST_CASE("a checkpoint of slices goes on in any layout", "[parallel][tensor]") {
  Runs runs;
  const Json save = {{"save_every", 3}, {"keep_checkpoints", 0}};
  const auto with_saves = [&](Json trainer) {
    trainer.update(save);
    return trainer;
  };
  const Outcome one = runs.run("whole", 1, kFull);
  runs.run("slices", 2, with_saves(parallel(2, true, 4)));
  const fs::path last = runs.dir("slices") / "checkpoints" / "step-00000006";
  fs::remove_all(last);
  check_same(runs.run("slices", 2, {{"gradient_accumulation", 2}}), one, 1e-9);
  fs::remove_all(last);
  check_same(runs.run("slices", 4, parallel(2, false, 2)), one, 1e-9);
}

TEST_CASE("what slices hold and move is what the plan says", "[parallel][tensor]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  test::register_latent_clips();
  const auto [ranks, sequence, recompute, recipe] = GENERATE(table<int, bool, bool, Json>({
      {4, true, false, kFull},
      {2, false, true, kFull},
      {2, true, false, kLora},
  }));
  Json how = {{"precision", "fp32"}, {"steps", 2}, {"ema", {{"kind", "none"}}}};
  how["activation_checkpointing"] = recompute ? "full" : "none";
  const int64_t accumulation = 8 / ranks;
  Runs runs;
  const auto answer = runs.start("run", ranks, parallel(2, sequence, accumulation, how), recipe);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Config config = load_config(runs.dir("run").string() + ".json", {});
  const auto task = make_recipe(config.recipe, "recipe");
  const Plan plan = make_plan(config, *task, ranks);
  const auto dit =
      std::dynamic_pointer_cast<modules::CosmosTransformer3DModel>(task->model_for_plan());
  REQUIRE(dit);
  const modules::TensorTraffic traffic = modules::tensor_traffic(dit->config(), 12, sequence);
  const double elements = traffic.block * 2 * (recompute ? 3 : 2) + traffic.head * 2;
  for (const Json& row : metrics_of(runs.dir("run"))) {
    CHECK(row.at("resident_bytes").get<double>() == plan.state_bytes());
    CHECK(row.at("gathered_bytes").get<double>() == plan.gather_traffic);
    CHECK(row.at("reduced_bytes").get<double>() == plan.reduce_traffic);
    CHECK(row.at("activation_bytes_moved").get<double>() ==
          elements * 4 * static_cast<double>(accumulation));
  }
}

TEST_CASE("what cannot be split is refused in one line", "[tensor]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  test::register_latent_clips();
  const auto message = [](const Json& recipe, int64_t ranks) -> std::string {
    const Config config = parse_config(config_json(parallel(ranks, true, 4), recipe), "test");
    try {
      make_plan(config, *make_recipe(config.recipe, "recipe"), ranks);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  using Catch::Contains;
  CHECK_THAT(message(kFull, 3),
             Contains("trainer.parallel.tensor: 3 ranks do not divide the 2 heads of "
                      "transformer_blocks.0.attn1.to_q"));
  CHECK(message(kLora, 2) == "no error");
}
