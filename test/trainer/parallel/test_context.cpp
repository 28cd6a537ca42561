// Context parallelism against one process: real processes over Gloo. A sample of the layouts runs
// by default, all of them under the tag [layouts].

#include "modules/registry.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/parallel/partial_attention.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::trainer;
using namespace cosmos::test;
using Catch::Matchers::Contains;

namespace {

/// Four heads, which 2 and 4 ranks divide; a frame of LatentClips has four tokens.
const Json kFourHeads = {{"model", {{"num_attention_heads", 4}}}};
const Json kAdapter = {{"model", {{"num_attention_heads", 4}}},
                       {"lora", {{"rank", 3}, {"dropout", 0.2}}}};

struct Layout {
  int64_t context, shard;
  const char* attention;
  const char* recompute;
  bool adapter;
  int64_t tensor = 1;
};

void check_layout(const Layout& layout, const std::string& before = "") {
  const Json& recipe = layout.adapter ? kAdapter : kFourHeads;
  const Json how = {{"activation_checkpointing", layout.recompute}, {"save_every", 6}};
  Runs runs;
  const Outcome one = runs.run("one", 1, how, recipe);
  Json split = how;
  split["gradient_accumulation"] = 4 / layout.shard;
  split["parallel"] = {{"context", layout.context},
                       {"shard", layout.shard},
                       {"tensor", layout.tensor},
                       {"context_attention", layout.attention}};
  const int ranks = static_cast<int>(layout.context * layout.shard * layout.tensor);
  INFO(split.dump() << recipe.dump());
  const Outcome ours = runs.run("context", ranks, split, recipe, before);
  check_same(ours, one, 1e-9);
  // Something was learned through the attention.
  const std::string moment = layout.adapter
                                 ? "exp_avg.transformer_blocks.1.norm1.linear_2.adapter.lora_B"
                                 : "exp_avg.transformer_blocks.1.attn1.to_k.weight";
  INFO(moment);
  if (one.optimizer.count(moment) > 0)
    CHECK(one.optimizer.at(moment).abs().max().item<double>() > 0);
}

}  // namespace

TEST_CASE("context: a part's attention and its gradients agree with the formula", "[context]") {
  torch::manual_seed(1);
  const auto dtype = GENERATE(torch::kFloat64, torch::kFloat32);
  const double tolerance = dtype == torch::kFloat64 ? 1e-12 : 1e-5;
  const auto random = [&](int64_t tokens) { return torch::randn({2, 3, tokens, 5}, dtype); };
  const Tensor q = random(7), k = random(9), v = random(9), grad = random(7);
  const auto close = [&](const Tensor& a, const Tensor& b) {
    REQUIRE(a.sizes() == b.sizes());
    CHECK((a - b).abs().max().item<double>() < tolerance);
  };
  const PartialAttention fused = partial_attention(q, k, v),
                         plain = plain_partial_attention(q, k, v);
  close(fused.out, plain.out);
  close(fused.lse, plain.lse);
  // The keys in two parts, put together.
  PartialAttention all = partial_attention(q, k.narrow(2, 0, 4), v.narrow(2, 0, 4));
  add_part(all, partial_attention(q, k.narrow(2, 4, 5), v.narrow(2, 4, 5)));
  close(all.out, plain.out);
  close(all.lse, plain.lse);
  const auto whole = plain_partial_attention_backward(grad, q, k, v, plain);
  const auto a = partial_attention_backward(grad, q, k.narrow(2, 0, 4), v.narrow(2, 0, 4), all);
  const auto b = partial_attention_backward(grad, q, k.narrow(2, 4, 5), v.narrow(2, 4, 5), all);
  close(a.q + b.q, whole.q);
  close(torch::cat({a.k, b.k}, 2), whole.k);
  close(torch::cat({a.v, b.v}, 2), whole.v);
}

TEST_CASE("context: every kind of attention is exact, delayed too, and moves what it says",
          "[context]") {
  const std::string ranks = GENERATE("2", "4");
  const Answer answer = run_program("group_worker", ranks + " attention");
  INFO(answer.text);
  CHECK(answer.code == 0);
}

TEST_CASE("context: ranks that share samples train as one process does", "[context]") {
  check_layout(
      GENERATE(Layout{2, 1, "ring", "none", false}, Layout{2, 2, "all_to_all", "full", false},
               Layout{2, 1, "all_gather", "full", true}, Layout{2, 1, "ring", "none", true, 2}));
}

TEST_CASE("context: all layouts train as one process does", "[.][layouts]") {
  for (const char* attention : {"ring", "all_to_all", "all_gather"})
    for (const auto& [context, shard] : {std::pair{2, 1}, {4, 1}, {2, 2}})
      for (const char* recompute : {"none", "full"})
        for (const bool adapter : {false, true})
          for (const int64_t tensor : {1, 2})
            if (context * tensor <= 4)  // a frame has four tokens
              check_layout({context, shard, attention, recompute, adapter, tensor});
}

TEST_CASE("context: delayed transports change nothing", "[context]") {
  check_layout({2, 2, "ring", "full", false}, "export COSMOS_TEST_DELAY=7");
}

TEST_CASE("context: what a step moves is what the plan's formula says", "[context]") {
  const auto [attention, recompute] = GENERATE(table<std::string, std::string>(
      {{"ring", "none"}, {"all_to_all", "full"}, {"all_gather", "none"}}));
  Runs runs;
  runs.run("run", 2,
           {{"activation_checkpointing", recompute},
            {"parallel", {{"context", 2}, {"context_attention", attention}}}},
           kFourHeads);
  // Two blocks; a clip is 3 frames of 4 tokens; four clips a step; eight bytes a number.
  const TokenShape shape{.layers = 2, .heads = 4, .head_dim = 12, .output = 16};
  const double expected = 4 * context_traffic(shape, context_attention(attention), 12, 2,
                                              recompute == "full" ? 1 : 0, 8);
  for (const Json& row : metrics_of(runs.dir("run")))
    CHECK(row.at("context_bytes").get<double>() == expected);
}

TEST_CASE("context: what cannot be split is refused in one line", "[context]") {
  const auto refused = [](const Json& parallel, const Json& recipe) {
    Runs runs;
    const Answer answer = runs.start("run", 3, {{"parallel", parallel}}, recipe);
    CHECK(answer.code != 0);
    return answer.text;
  };
  CHECK_THAT(refused({{"context", 3}}, Json::object()),
             Contains("expected a number of tokens per frame that 3 ranks divide, got 4"));
  CHECK_THAT(refused({{"context", 2}}, Json::object()), Contains("but there are 3"));
}

TEST_CASE("context: activations of a long video fall with the ranks that share it", "[context]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  const auto plan_of = [](int64_t context) {
    Json json =
        config_json({{"precision", "bf16"},
                     {"activation_checkpointing", "full"},
                     {"gradient_accumulation", 1},
                     {"parallel", {{"context", context}, {"context_attention", "ring"}}}},
                    {{"model", {{"num_attention_heads", 16}, {"attention_head_dim", 128}}}});
    // 300 latent frames of 80 x 44 tokens.
    json["recipe"]["data"] = {{"type", "video"},
                              {"path", "nowhere"},
                              {"num_frames", 1197},
                              {"height", 704},
                              {"width", 1280}};
    const Config config = parse_config(json, "long.json");
    return make_plan(config, *make_recipe(config.recipe, "recipe"), context);
  };
  const Plan one = plan_of(1), eight = plan_of(8), many = plan_of(64);
  CHECK(one.tokens > 1e6);
  CHECK(eight.activation_bytes == Approx(one.activation_bytes / 8));
  CHECK(many.activation_bytes == Approx(one.activation_bytes / 64));
  CHECK(many.flops_per_step == Approx(one.flops_per_step / 64));
  CHECK(one.context_traffic == 0);
  CHECK(eight.context_traffic > 0);
}
