// The simulated step, where its time follows by hand.

#include <catch2/catch.hpp>

#include "modules/registry.h"
#include "test/support/rank_runs.h"
#include "trainer/loop/plan.h"
#include "trainer/loop/step_time.h"
#include "trainer/recipes/builtin.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;

namespace {

MachineSpeeds speeds_of(double node, double network) {
  return {.name = "made up",
          .matmul_tflops = 100,
          .memory_gb_per_s = 1000,
          .memory_gb = 80,
          .node_ranks = 8,
          .node = {.gb_per_s = node, .latency_us = 0},
          .network = {.gb_per_s = network, .latency_us = 0}};
}

Config config_of(const Json& trainer) {
  modules::register_builtin_models();
  register_builtin_recipes();
  const Json how = {
      {"gradient_accumulation", 1}, {"precision", "bf16"}, {"ema", {{"kind", "none"}}}};
  Json json = config_json(how, {{"model",
                                 {{"num_attention_heads", 16},
                                  {"attention_head_dim", 128},
                                  {"num_layers", 28},
                                  {"mlp_ratio", 4.0},
                                  {"text_embed_dim", 1024},
                                  {"adaln_lora_dim", 256},
                                  {"max_size", {128, 240, 240}}}}});
  json["trainer"].update(trainer, /*merge_objects=*/true);
  json["recipe"]["data"] = {
      {"type", "video"}, {"path", "nowhere"}, {"num_frames", 93}, {"height", 704}, {"width", 1280}};
  return parse_config(json, "test");
}

StepTime time_of(const Config& config, const MachineSpeeds& speeds, int64_t ranks) {
  return step_time(config, *make_recipe(config.recipe, "recipe"), speeds, ranks);
}

}  // namespace

TEST_CASE("one rank computes its FLOPs and nothing else", "[simulate]") {
  const Config config = config_of(Json::object());
  const auto recipe = make_recipe(config.recipe, "recipe");
  const StepTime one = step_time(config, *recipe, speeds_of(0, 0), 1);
  CHECK(one.compute == Approx(recipe->flops_per_sample() / 100e12));
  CHECK(one.exposed == Approx(0).margin(1e-9));
  CHECK(one.seconds == Approx(one.compute + one.optimizer));
  const Config again = config_of({{"activation_checkpointing", "full"}});
  CHECK(time_of(again, speeds_of(0, 0), 1).compute == Approx(one.compute * 4 / 3));
}

TEST_CASE("fast links cost nothing, slow ones all that is gathered and reduced", "[simulate]") {
  const Config config = config_of(Json::object());
  const StepTime fast = time_of(config, speeds_of(1e9, 1e9), 64);
  CHECK(fast.exposed < 1e-3 * fast.compute);
  CHECK(fast.samples == 64);
  const auto recipe = make_recipe(config.recipe, "recipe");
  const Plan plan = make_plan(config, *recipe, 64);
  const StepTime slow = time_of(config, speeds_of(0.1, 0.1), 64);
  const double bytes = plan.gather_traffic + plan.reduce_traffic;
  CHECK(slow.seconds == Approx(bytes * 63 / 64 / 0.1e9).epsilon(0.1));
  // Halfway: what products hide is not waited for.
  const StepTime some = time_of(config, speeds_of(300, 20), 64);
  CHECK(some.exposed > 0);
  CHECK(some.exposed < bytes / 20e9);
}

TEST_CASE("replicas keep the gathers inside of a machine", "[simulate]") {
  const Config all = config_of({{"gradient_accumulation", 8}});
  const Config inside = config_of({{"gradient_accumulation", 8}, {"parallel", {{"shard", 8}}}});
  const MachineSpeeds speeds = speeds_of(300, 0.02);
  CHECK(time_of(inside, speeds, 512).exposed < 0.5 * time_of(all, speeds, 512).exposed);
  CHECK(time_of(inside, speeds, 512).peak_bytes > time_of(all, speeds, 512).peak_bytes);
}

TEST_CASE("groups of one rank a machine share its network", "[simulate]") {
  const Config config = config_of({{"parallel", {{"shard", 8}, {"replica", 2}}}});
  const Plan plan = make_plan(config, *make_recipe(config.recipe, "recipe"), 16);
  // An eighth of the gradients all-reduced by two ranks, at an eighth of the network.
  const double bytes = 4 * static_cast<double>(plan.trained) / 8;
  CHECK(time_of(config, speeds_of(1e9, 0.01), 16).seconds ==
        Approx(bytes / (0.01e9 / 8)).epsilon(0.1));
}

TEST_CASE("a pipeline idles while it fills and drains", "[simulate]") {
  const Config config =
      config_of({{"gradient_accumulation", 12}, {"parallel", {{"pipeline", 4}, {"shard", 1}}}});
  const StepTime time = time_of(config, speeds_of(1e9, 1e9), 4);
  CHECK(time.idle / time.compute == Approx(3.0 / 12).epsilon(0.01));
}

TEST_CASE("tables to 16384 ranks, and a link without a speed is named", "[simulate]") {
  const Config config = config_of({{"parallel", {{"shard", 8}}}});
  const auto recipe = make_recipe(config.recipe, "recipe");
  const std::string tables = scaling_tables(config, *recipe, speeds_of(300, 30));
  CHECK_THAT(tables, Contains("| 8 | 1 |") && Contains("| 16384 | 1 |") && Contains("100 %"));
  CHECK_THAT(tables, Contains("GiB, too much |"));
  MachineSpeeds large = speeds_of(300, 30);
  large.memory_gb = 800;
  CHECK_THAT(scaling_tables(config, *recipe, large, 8), !Contains("too much"));
  CHECK_THAT(tables,
             Contains("Strong scaling: 16384 samples in every step") && Contains("| 8 | 2048 |"));
  CHECK_THROWS_WITH(scaling_tables(config, *recipe, speeds_of(300, 0)),
                    Contains("network.gb_per_s: expected a number above 0"));
}

TEST_CASE("speeds are measured, written and read", "[simulate]") {
  TempFolder dir;
  const MachineSpeeds measured = measure_speeds(torch::kCPU, torch::kFloat32, nullptr, 1);
  CHECK(measured.matmul_tflops > 1e-3);
  CHECK(measured.memory_gb_per_s > 0.1);
  MachineSpeeds copy = measured;
  modules::write_json(dir.path() / "speeds.json", modules::write_fields(copy));
  CHECK(read_speeds(dir.path() / "speeds.json").matmul_tflops == Approx(measured.matmul_tflops));
  modules::write_json(dir.path() / "bad.json", {{"matmul_tflop", 3}});
  CHECK_THROWS_WITH(read_speeds(dir.path() / "bad.json"), Contains("did you mean matmul_tflops"));
}
