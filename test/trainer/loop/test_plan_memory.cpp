// --plan's peak against the bytes of tensors that a run holds at most, counted at the allocator.
// Long: test/long/plan_memory.sh runs it and writes docs/proofs/plan_memory.md. One run alone:
// test_trainer "the predicted peak*" -c "LoRA".

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

Json with(const char* key, const Json& value) {
  return {{key, value}};
}

Json recompute(const char* mode) {
  return with("activation_checkpointing", mode);
}

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

/// Runs that were at hand while what the plan counts was found.
std::vector<Case> seen_cases() {
  const Json lora = {{"lora", {{"rank", 8}}}};
  return {
      {"all weights, state-bound", 1, Json::object(), recipe_of(12, 6, 9, 128)},
      {"saved in the background", 1, with("checkpoint", {{"background", true}}),
       recipe_of(12, 6, 9, 128)},
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

/// Runs that were written down before the plan was corrected, and first measured after it.
std::vector<Case> unseen_cases() {
  const Json lora = {{"lora", {{"rank", 16}}}};
  const Json narrow_mlp = {{"model", {{"mlp_ratio", 2.0}}}};
  const Json wide_heads = {{"model", {{"attention_head_dim", 128}}}};
  return {
      {"all weights, heads of 128", 1, Json::object(), recipe_of(6, 6, 17, 192, wide_heads)},
      {"two clips, narrow MLP", 1, with("micro_batch_size", 2),
       recipe_of(5, 10, 25, 256, narrow_mlp)},
      {"bf16, attention kept",
       1,
       {{"precision", "bf16"}, {"activation_checkpointing", "keep_attention"}},
       recipe_of(10, 8, 33, 320)},
      {"bf16, averages, micro-batches",
       1,
       {{"precision", "bf16"}, {"ema", {{"kind", "power"}}}, {"gradient_accumulation", 3}},
       recipe_of(12, 6, 9, 128)},
      {"bf16, LoRA", 1, with("precision", "bf16"), recipe_of(9, 12, 33, 256, lora)},
      {"two shards, LoRA, attention kept", 2, recompute("keep_attention"),
       recipe_of(10, 10, 41, 256, lora)},
      {"two shards that stay whole", 2, with("parallel", {{"reshard_after_forward", false}}),
       recipe_of(14, 8, 13, 160)},
      {"tokens on two ranks", 2, with("parallel", {{"context", 2}}), recipe_of(6, 12, 49, 256)},
      {"two stages, four micro-batches",
       2,
       {{"parallel", {{"pipeline", 2}}}, {"gradient_accumulation", 4}},
       recipe_of(8, 12, 25, 192)},
      {"two slices, tokens whole", 2, with("parallel", {{"tensor", 2}, {"sequence", false}}),
       recipe_of(8, 10, 25, 256)},
      {"every third block recomputed, two clips",
       1,
       {{"activation_checkpointing", "selective"}, {"selective_every", 3}, {"micro_batch_size", 2}},
       recipe_of(6, 9, 17, 256)},
      {"two shards, activations on a disk", 2, with("activation_offload", "disk"),
       recipe_of(14, 8, 17, 192)},
  };
}

/// The most bytes of tensors that any rank held in two steps.
double counted_peak(const Case& c, Runs& runs) {
  Json trainer = {{"precision", "fp32"},
                  {"steps", 2},
                  {"gradient_accumulation", 1},
                  {"ema", {{"kind", "none"}}},
                  // A checkpoint's copy of the state would hide the step in most of these runs.
                  {"checkpoint", {{"background", false}}}};
  trainer.update(c.trainer, /*merge_objects=*/true);
  const std::string file = runs.dir("run").string() + ".peak";
  const Answer answer =
      runs.start("run", c.ranks, trainer, c.recipe,
                 "export COSMOS_TEST_PEAK_OF=run COSMOS_TEST_PEAK='" + file + "'");
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  double most = 0;
  for (int rank = 0; rank < c.ranks; ++rank) {
    double bytes = 0;
    std::ifstream(file + std::to_string(rank)) >> bytes;
    most = std::max(most, bytes);
  }
  return most;
}

void check_case(const Case& c) {
  Runs runs;
  const double counted = counted_peak(c, runs);
  const Config config = load_config(runs.dir("run").string() + ".json", {});
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), c.ranks);
  const double off = plan.total_bytes() / counted - 1;
  std::ostringstream row;
  row << "| " << c.name << " | " << c.ranks << " | " << plan.parameters << std::fixed
      << std::setprecision(0) << " | " << plan.total_bytes() * 1e-6 << " | " << counted * 1e-6
      << " | " << std::showpos << std::setprecision(1) << 100 * off << " % |\n";
  std::cerr << row.str();
  if (const char* out = std::getenv("COSMOS_PROOF_TABLE"))
    std::ofstream(out, std::ios::app) << row.str();
  CHECK(counted > 500e6);
  CHECK(std::abs(off) < 0.1);
}

void register_all() {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
}

}  // namespace

TEST_CASE("the predicted peak is within a tenth of the counted one", "[.][plan_memory][seen]") {
  register_all();
  for (const Case& c : seen_cases()) DYNAMIC_SECTION(c.name) {
      check_case(c);
    }
}

TEST_CASE("the predicted peak of other runs is, too", "[.][plan_memory][unseen]") {
  register_all();
  for (const Case& c : unseen_cases()) DYNAMIC_SECTION(c.name) {
      check_case(c);
    }
}
