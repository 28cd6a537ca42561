// Language models on several ranks against one process: shards with tied weights, slices with split
// classes, experts. Real processes over Gloo.

#include <catch2/catch.hpp>

#include "modules/registry.h"
#include "test/support/language_recipe.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::trainer;
using namespace cosmos::test;

namespace {

Json language(const std::string& name, const Json& more = Json::object()) {
  Json text = {{"vocab_size", 32},
               {"hidden_size", 24},
               {"intermediate_size", 20},
               {"num_hidden_layers", 2},
               {"num_attention_heads", 4},
               {"num_key_value_heads", 2},
               {"head_dim", 6},
               {"initializer_range", 0.1},
               {"tie_word_embeddings", false},
               {"rope_parameters", {{"rope_theta", 1e3}}}};
  text.update(more);
  return {{"type", "language"}, {"class", name}, {"config", text}};
}

/// A dense layer and one of four experts, two a token.
Json with_experts() {
  return language("Qwen3MoeForCausalLM", {{"num_experts", 4},
                                          {"num_experts_per_tok", 2},
                                          {"moe_intermediate_size", 10},
                                          {"mlp_only_layers", {0}}});
}

struct Layout {
  std::string name;
  int ranks, data_ranks;
  Json parallel, recipe;
  std::string recompute = "none";
};

void check_layout(Runs& runs, const Layout& layout) {
  Outcome one = runs.run(layout.name + "-one", 1, {{"steps", 6}}, layout.recipe);
  if (layout.recipe.at("config").contains("num_experts") && !layout.recipe.contains("lora")) {
    // One process writes an expert a tensor, as save_pretrained does; ranks keep them together.
    const Outcome shards =
        runs.run(layout.name + "-shards", 2, {{"gradient_accumulation", 2}}, layout.recipe);
    CHECK(worst(shards.losses, one.losses) < 1e-9);
    CHECK(worst(shards.optimizer, one.optimizer) < 1e-9);
    one.weights = shards.weights;
    one.averages = shards.averages;
  }
  CHECK(one.losses.back() < one.losses.front());
  const Json how = {{"gradient_accumulation", 4 / layout.data_ranks},
                    {"activation_checkpointing", layout.recompute},
                    {"parallel", layout.parallel}};
  INFO(layout.name << ": " << how.dump() << layout.recipe.dump());
  const auto answer =
      runs.start(layout.name, layout.ranks, how, layout.recipe, "export COSMOS_TEST_DELAY=1");
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  check_same(Runs::read(runs.dir(layout.name)), one, 1e-9);
}

Json tensor(bool sequence) {
  return {{"tensor", 2}, {"sequence", sequence}};
}

Json adapted(Json recipe) {
  recipe["lora"] = {{"rank", 3}, {"dropout", 0.2}, {"exclude_modules", {"lm_head"}}};
  return recipe;
}

}  // namespace

TEST_CASE("a language model on ranks trains as in one process", "[parallel][language]") {
  Runs runs;
  SECTION("a tied head on two shards") {
    check_layout(runs, {"tied", 2, 2, Json::object(),
                        language("Qwen3ForCausalLM", {{"tie_word_embeddings", true}})});
  }
  SECTION("two slices of two shards, classes and tokens split, layers recomputed") {
    check_layout(runs, {"slices", 4, 2, tensor(true), language("Qwen3ForCausalLM"), "full"});
  }
  SECTION("two stages of layers") {
    check_layout(runs, {"stages", 2, 1, {{"pipeline", 2}}, language("Qwen3ForCausalLM")});
  }
  SECTION("experts on two ranks, of two slices each") {
    check_layout(runs, {"experts", 4, 2, {{"tensor", 2}, {"expert", 2}}, with_experts()});
  }
}

TEST_CASE("every layout of a language model trains as in one process", "[.][language-all]") {
  Runs runs;
  int n = 0;
  const auto next = [&] { return "run" + std::to_string(n++); };
  for (const char* recompute : {"none", "full"}) {
    for (const char* name : {"Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM"})
      for (const bool sequence : {true, false}) {
        check_layout(runs, {next(), 2, 1, tensor(sequence), language(name), recompute});
        check_layout(runs, {next(), 2, 1, tensor(sequence), adapted(language(name)), recompute});
      }
    for (const char* schedule : {"1f1b", "zero_bubble"}) {
      const Json stages = {{"pipeline", 2}, {"pipeline_schedule", schedule}};
      check_layout(runs, {next(), 2, 1, stages, language("Qwen3ForCausalLM"), recompute});
      check_layout(runs, {next(), 2, 1, stages, adapted(language("Qwen3ForCausalLM")), recompute});
    }
    for (const Json& recipe : {with_experts(), adapted(with_experts())}) {
      check_layout(runs, {next(), 2, 2, {{"expert", 2}}, recipe, recompute});
      check_layout(runs, {next(), 4, 4, {{"expert", 4}}, recipe, recompute});
      check_layout(runs, {next(), 4, 4, {{"expert", 2}}, recipe, recompute});
      check_layout(runs, {next(), 4, 4, {{"expert", 2}, {"replica", 2}}, recipe, recompute});
      check_layout(
          runs,
          {next(), 4, 2, {{"expert", 2}, {"tensor", 2}, {"sequence", false}}, recipe, recompute});
    }
  }
}

TEST_CASE("what ranks hold of a language model is what the plan says", "[parallel][language]") {
  modules::register_builtin_models();
  test::register_language();
  Runs runs;
  const Json how = {{"precision", "fp32"},
                    {"steps", 2},
                    {"gradient_accumulation", 2},
                    {"parallel", {{"tensor", 2}, {"expert", 2}}}};
  Json recipe = with_experts();
  const auto answer = runs.start("run", 4, how, recipe);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Config config = load_config(runs.dir("run").string() + ".json", {});
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), 4);
  for (const Json& row : metrics_of(runs.dir("run"))) {
    CHECK(row.at("resident_bytes").get<double>() == plan.state_bytes());
    CHECK(row.at("gathered_bytes").get<double>() == plan.gather_traffic);
    CHECK(row.at("reduced_bytes").get<double>() == plan.reduce_traffic);
  }
}

TEST_CASE("experts that ranks do not divide are refused in one line", "[language]") {
  modules::register_builtin_models();
  test::register_language();
  const auto message = [](const Json& recipe, int64_t ranks) -> std::string {
    const Config config =
        parse_config(config_json({{"parallel", {{"expert", ranks}}}}, recipe), "test");
    try {
      make_plan(config, *make_recipe(config.recipe, "recipe"), ranks);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK_THAT(message(with_experts(), 3),
             Catch::Contains("trainer.parallel.expert: 3 ranks do not divide the 4 experts of "
                             "model.layers.1.mlp.experts"));
  CHECK_THAT(message(language("Qwen3ForCausalLM"), 2), Catch::Contains("has no experts"));
}
