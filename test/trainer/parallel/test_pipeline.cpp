// Pipeline parallelism against one process: real processes over Gloo. A sample of the layouts runs
// by default, all of them under the tag [layouts].

#include <deque>

#include "modules/registry.h"
#include "test/support/latent_clips.h"
#include "test/support/rank_runs.h"
#include "trainer/config/config.h"
#include "trainer/loop/plan.h"
#include "trainer/parallel/pipeline_schedule.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::trainer;
using namespace cosmos::test;
using Catch::Matchers::Contains;
using Kind = PipelineAction::Kind;

namespace {

struct Layout {
  int64_t pipeline, shard;
  const char* schedule;
  const char* recompute;
  bool adapter;
  int64_t context = 1, tensor = 1;
  bool sequence = true;
};

constexpr const char* kDelay = "export COSMOS_TEST_DELAY=5";

/// Text that a trained stem prepares. (Learnable positions stay float32, so do not compare to
/// 1e-9.)
Json recipe_of(const Layout& layout) {
  const int64_t chunks = std::string(layout.schedule) == "interleaved" ? 2 : 1;
  Json recipe = {{"model",
                  {{"num_layers", std::max<int64_t>(4, layout.pipeline * chunks)},
                   {"use_crossattn_projection", true},
                   {"crossattn_proj_in_channels", 6},
                   {"encoder_hidden_states_channels", 8}}}};
  if (layout.adapter) recipe["lora"] = {{"rank", 3}, {"dropout", 0.1}};
  return recipe;
}

void check_layout(const Layout& layout, const std::string& before = "") {
  const Json how = {{"activation_checkpointing", layout.recompute}};
  const Json recipe = recipe_of(layout);
  Runs runs;
  const Outcome one = runs.run("one", 1, how, recipe);
  Json cut = how;
  cut["gradient_accumulation"] = 4 / layout.shard;
  cut["parallel"] = {{"pipeline", layout.pipeline}, {"shard", layout.shard},
                     {"context", layout.context},   {"tensor", layout.tensor},
                     {"sequence", layout.sequence}, {"pipeline_schedule", layout.schedule}};
  const int ranks =
      static_cast<int>(layout.pipeline * layout.shard * layout.context * layout.tensor);
  INFO(cut.dump() << recipe.dump());
  check_same(runs.run("pipeline", ranks, cut, recipe, before), one, 1e-9);
}

/// Runs all ranks' actions against each other: an action waits for what it needs; messages of a
/// direction between two ranks arrive in the order of sending. Returns the most micro-batches that
/// a rank holds between forward and the end of its backward.
std::vector<int64_t> simulate(PipelineSchedule schedule, int64_t ranks, int64_t chunks, int64_t n) {
  const int64_t stages = ranks * chunks;
  std::vector<std::deque<PipelineAction>> left;
  std::vector<std::deque<std::pair<int64_t, int64_t>>> forwards(ranks), backwards(ranks);
  for (int64_t r = 0; r < ranks; ++r) {
    const auto actions = pipeline_actions(schedule, r, ranks, chunks, n);
    left.emplace_back(actions.begin(), actions.end());
    CHECK(left[r].size() == static_cast<std::size_t>(
                                n * chunks * (schedule == PipelineSchedule::kZeroBubble ? 3 : 2)));
  }
  std::vector<int64_t> held(ranks), most(ranks);
  bool moved = true;
  while (moved) {
    moved = false;
    for (int64_t r = 0; r < ranks; ++r) {
      while (!left[r].empty()) {
        const PipelineAction a = left[r].front();
        REQUIRE(a.stage % ranks == r);
        const bool forward = a.kind == Kind::kForward;
        if (a.kind != Kind::kWeights && a.stage != (forward ? 0 : stages - 1)) {
          auto& arrived = (forward ? forwards : backwards)[r];
          if (arrived.empty()) break;
          REQUIRE(arrived.front() == std::pair{a.stage, a.micro_batch});
          arrived.pop_front();
        }
        const int64_t to = forward ? a.stage + 1 : a.stage - 1;
        if (a.kind != Kind::kWeights && to >= 0 && to < stages)
          (forward ? forwards : backwards)[to % ranks].emplace_back(to, a.micro_batch);
        const bool ends = a.kind == (schedule == PipelineSchedule::kZeroBubble ? Kind::kWeights
                                                                               : Kind::kBackward);
        held[r] += forward ? 1 : ends ? -1 : 0;
        most[r] = std::max(most[r], held[r]);
        left[r].pop_front();
        moved = true;
      }
    }
  }
  for (int64_t r = 0; r < ranks; ++r) {
    INFO("rank " << r);
    CHECK(left[r].empty());
    CHECK(held[r] == 0);
  }
  return most;
}

}  // namespace

TEST_CASE("pipeline: schedules are complete, wait for nobody in vain and hold little",
          "[pipeline]") {
  for (const int64_t ranks : {2, 3, 4})
    for (const int64_t groups : {1, 2, 5}) {
      const int64_t n = groups * ranks;
      INFO(ranks << " ranks, " << n << " micro-batches");
      const auto plain = simulate(PipelineSchedule::k1F1B, ranks, 1, n);
      for (int64_t r = 0; r < ranks; ++r) CHECK(plain[r] == std::min(n, ranks - r));
      const auto zero = simulate(PipelineSchedule::kZeroBubble, ranks, 1, n);
      for (int64_t r = 0; r < ranks; ++r) CHECK(zero[r] <= ranks);
      simulate(PipelineSchedule::kInterleaved, ranks, 2, n);
      simulate(PipelineSchedule::kInterleaved, ranks, 3, n);
    }
  simulate(PipelineSchedule::k1F1B, 4, 1, 3);
  simulate(PipelineSchedule::kZeroBubble, 4, 1, 1);
}

TEST_CASE("pipeline: stages train as one process does", "[pipeline]") {
  check_layout(GENERATE(Layout{2, 1, "1f1b", "none", false},
                        Layout{2, 1, "zero_bubble", "none", false, 1, /*tensor=*/2}));
}

TEST_CASE("pipeline: delayed transports change nothing", "[pipeline]") {
  check_layout({2, 2, "interleaved", "full", true}, kDelay);
}

TEST_CASE("pipeline: all layouts train as one process does", "[.][layouts]") {
  for (const char* schedule : {"1f1b", "interleaved", "zero_bubble"})
    for (const auto& [pipeline, shard] : {std::pair{2, 1}, {4, 1}, {2, 2}})
      for (const char* recompute : {"none", "full"})
        for (const bool adapter : {false, true})
          check_layout({pipeline, shard, schedule, recompute, adapter}, kDelay);
}

TEST_CASE("pipeline: stages whose ranks share tokens or products train as one process does",
          "[.][layouts]") {
  for (const char* schedule : {"1f1b", "interleaved", "zero_bubble"})
    for (const bool adapter : {false, true}) {
      check_layout({2, 1, schedule, "none", adapter, /*context=*/2}, kDelay);
      check_layout({2, 1, schedule, "none", adapter, 1, /*tensor=*/2}, kDelay);
      check_layout({2, 1, schedule, "full", adapter, 1, 2, /*sequence=*/false}, kDelay);
    }
  check_layout({2, 2, "1f1b", "full", false, 1, 2}, kDelay);
}

TEST_CASE("pipeline: a rank holds its stage alone, and a checkpoint goes on in any layout",
          "[pipeline]") {
  const Layout layout{2, 1, "1f1b", "none", false};
  const Json recipe = recipe_of(layout);
  Runs runs;
  const Outcome one = runs.run("one", 1, {{"gradient_accumulation", 4}}, recipe);
  const Json cut = {{"save_every", 3}, {"keep_checkpoints", 0}, {"parallel", {{"pipeline", 2}}}};
  runs.run("cut", 2, cut, recipe);
  // Each half of the state, but for stems and heads.
  runs.run("whole", 2, {{"gradient_accumulation", 2}, {"parallel", {{"shard", 2}}}}, recipe);
  const auto bytes = [&](const char* name) {
    return metrics_of(runs.dir(name)).front().at("resident_bytes").get<double>();
  };
  CHECK(bytes("cut") == Approx(bytes("whole")).epsilon(0.3));
  for (const Json& row : metrics_of(runs.dir("cut"))) CHECK(row.at("pipeline_bytes") > 0);
  const std::filesystem::path last = runs.dir("cut") / "checkpoints" / "step-00000006";
  SECTION("in the same one") {
    std::filesystem::remove_all(last);
    check_same(runs.run("cut", 2, cut, recipe), one, 1e-9);
  }
  SECTION("in one process") {
    std::filesystem::remove_all(last);
    check_same(runs.run("cut", 1, Json::object(), recipe), one, 1e-9);
  }
}

TEST_CASE("pipeline: the fullest rank holds and moves what the plan says", "[pipeline]") {
  modules::register_builtin_models();
  register_builtin_recipes();
  register_latent_clips();
  const std::string schedule = GENERATE("1f1b", "interleaved");
  Runs runs;
  const bool adapter = GENERATE(false, true);
  Json recipe = recipe_of({2, 1, schedule.c_str(), "none", adapter});
  recipe["data"] = {{"num_frames", 9}, {"height", 32}, {"width", 32}};
  // A time code a frame: given frames have a time of their own.
  recipe["condition_time"] = adapter ? 0.1 : -1.0;
  runs.run("run", 2,
           {{"precision", "fp32"},
            {"micro_batch_size", 2},
            {"parallel", {{"pipeline", 2}, {"pipeline_schedule", schedule}}}},
           recipe);
  const Config config = load_config(runs.dir("run").string() + ".json", {});
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), 2);
  CHECK(plan.pipeline == 2);
  const std::vector<Json> first = metrics_of(runs.dir("run"));
  const std::vector<Json> second = metrics_of(runs.dir("run") / "ranks" / "1");
  REQUIRE(first.size() == second.size());
  const auto fullest = [&](std::size_t step, const char* key) {
    return std::max(first[step].at(key).get<double>(), second[step].at(key).get<double>());
  };
  for (std::size_t step = 0; step < first.size(); ++step) {
    CHECK(fullest(step, "resident_bytes") == plan.state_bytes());
    CHECK(fullest(step, "reduced_bytes") == plan.reduce_traffic);
    CHECK(fullest(step, "pipeline_bytes") == plan.pipeline_traffic);
    CHECK(first[step].at("loss") == second[step].at("loss"));
  }
}

TEST_CASE("pipeline: what cannot be cut is refused in one line", "[pipeline]") {
  const auto refused = [](const Json& trainer, const Json& recipe) {
    Runs runs;
    const Answer answer = runs.start("run", 2, trainer, recipe);
    CHECK(answer.code != 0);
    return answer.text;
  };
  const Json two = {{"pipeline", 2}};
  const Json tied = {{"type", "language"},
                     {"class", "Qwen3ForCausalLM"},
                     {"config",
                      {{"vocab_size", 32},
                       {"hidden_size", 24},
                       {"intermediate_size", 20},
                       {"num_hidden_layers", 2},
                       {"num_attention_heads", 4},
                       {"num_key_value_heads", 2},
                       {"head_dim", 6},
                       {"tie_word_embeddings", true}}}};
  CHECK_THAT(refused({{"parallel", two}}, tied),
             Contains("model.embed_tokens and lm_head share a weight and are on different stages"));
  CHECK_THAT(
      refused({{"parallel", two}}, {{"model", {{"num_layers", 1}}}}),
      Contains("expected a number of blocks that 2 stages (2 ranks x 1 chunks) divide, got 1"));
  CHECK_THAT(refused({{"gradient_accumulation", 1}, {"parallel", two}}, Json::object()),
             Contains("trainer.gradient_accumulation: expected at least as many micro-batches"));
  CHECK_THAT(
      refused({{"gradient_accumulation", 3},
               {"parallel", {{"pipeline", 2}, {"pipeline_schedule", "interleaved"}}}},
              Json::object()),
      Contains("trainer.gradient_accumulation: expected a multiple of trainer.parallel.pipeline"));
}
