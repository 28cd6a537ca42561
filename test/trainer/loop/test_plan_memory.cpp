// --plan's peak against the bytes of tensors that a run holds at most, counted at the allocator.
// Long: test/long/plan_memory.sh runs it and writes docs/proofs/plan_memory.md.

#include <catch2/catch.hpp>
#include <fstream>
#include <iomanip>
#include <iostream>

#include "modules/registry.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;

namespace {

struct Case {
  std::string name;
  int ranks = 1;
  Json trainer, recipe;
};

/// A model of `layers` blocks of `heads` heads of 64, on clips of `frames` frames.
Json recipe_of(int64_t heads, int64_t layers, int64_t frames, int64_t size, Json more = {}) {
  Json recipe = {{"model",
                  {{"num_attention_heads", heads},
                   {"attention_head_dim", 64},
                   {"num_layers", layers},
                   {"mlp_ratio", 4.0},
                   {"text_embed_dim", 64},
                   {"adaln_lora_dim", 64},
                   {"max_size", {64, 128, 128}}}},
                 {"data", {{"num_frames", frames}, {"height", size}, {"width", size}}}};
  if (!more.is_null()) recipe.update(more, /*merge_objects=*/true);
  return recipe;
}

std::vector<Case> cases() {
  const Json lora = {{"lora", {{"rank", 8}}}};
  const auto with = [](const char* key, const Json& value) { return Json{{key, value}}; };
  const auto recompute = [](const char* mode) { return Json{{"activation_checkpointing", mode}}; };
  return {
      {"all weights, state-bound", 1, Json::object(), recipe_of(12, 6, 9, 128)},
      {"all weights, activation-bound", 1, Json::object(), recipe_of(4, 12, 33, 256)},
      {"bf16", 1, with("precision", "bf16"), recipe_of(12, 7, 9, 256)},
      {"LoRA", 1, Json::object(), recipe_of(6, 10, 33, 256, lora)},
      {"LoRA, recomputed", 1, recompute("full"), recipe_of(8, 8, 65, 256, lora)},
      {"recomputed, attention kept", 1, recompute("keep_attention"), recipe_of(6, 12, 65, 256)},
      {"every second block recomputed", 1, recompute("selective"), recipe_of(5, 12, 33, 256)},
      {"8-bit moments, averages",
       1,
       {{"optimizer", {{"moments", "int8"}}}, {"ema", {{"kind", "power"}}}},
       recipe_of(12, 8, 9, 128)},
      {"two shards", 2, Json::object(), recipe_of(16, 7, 17, 128)},
      {"two shards, micro-batches", 2, with("gradient_accumulation", 2), recipe_of(12, 7, 17, 128)},
      {"two slices, tokens split", 2, with("parallel", {{"tensor", 2}}), recipe_of(8, 12, 33, 256)},
      {"two shards, bf16, recomputed",
       2,
       {{"precision", "bf16"}, {"activation_checkpointing", "full"}},
       recipe_of(16, 8, 17, 256)},
      {"activations on a disk", 1, with("activation_offload", "disk"), recipe_of(12, 6, 33, 256)},
      {"state on a disk, two shards", 2, with("parallel", {{"offload", "disk"}}),
       recipe_of(8, 10, 65, 256)},
  };
}

}  // namespace

TEST_CASE("the predicted peak is within a tenth of the counted one", "[.][plan_memory]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  std::ostringstream table;
  table << "| run | ranks | parameters | predicted, MB | counted, MB | off |\n"
           "| --- | --- | --- | --- | --- | --- |\n";
  for (const Case& c : cases()) {
    INFO(c.name);
    Runs runs;
    Json trainer = {{"precision", "fp32"},
                    {"steps", 2},
                    {"gradient_accumulation", 1},
                    {"ema", {{"kind", "none"}}}};
    trainer.update(c.trainer, /*merge_objects=*/true);
    const std::string file = runs.dir("run").string() + ".peak";
    const Answer answer =
        runs.start("run", c.ranks, trainer, c.recipe,
                   "export COSMOS_TEST_PEAK_OF=run COSMOS_TEST_PEAK='" + file + "'");
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    double counted = 0;
    for (int rank = 0; rank < c.ranks; ++rank) {
      double bytes = 0;
      std::ifstream(file + std::to_string(rank)) >> bytes;
      counted = std::max(counted, bytes);
    }
    const Config config = load_config(runs.dir("run").string() + ".json", {});
    const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), c.ranks);
    const double off = plan.total_bytes() / counted - 1;
    std::ostringstream row;
    row << "| " << c.name << " | " << c.ranks << " | " << plan.parameters << std::fixed
        << std::setprecision(0) << " | " << plan.total_bytes() * 1e-6 << " | " << counted * 1e-6
        << " | " << std::showpos << std::setprecision(1) << 100 * off << " % |\n";
    table << row.str();
    std::cerr << row.str();
    CHECK(counted > 500e6);
    CHECK(std::abs(off) < 0.1);
  }
  if (const char* out = std::getenv("COSMOS_PROOF_TABLE")) std::ofstream(out) << table.str();
}
