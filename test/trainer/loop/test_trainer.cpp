#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/safetensors.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/loop/plan.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

TensorMap weights_of(const fs::path& checkpoint) {
  TensorMap copies;
  for (const auto& [name, tensor] :
       modules::load_safetensors(checkpoint / "model/diffusion_pytorch_model.safetensors"))
    copies[name] = tensor.clone();
  return copies;
}

double largest_difference(const TensorMap& a, const TensorMap& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (const auto& [name, tensor] : a)
    largest = std::max(largest, (tensor - b.at(name)).abs().max().item<double>());
  return largest;
}

}  // namespace

TEST_CASE("A run leaves the folder that the documentation describes", "[trainer]") {
  TempFolder dir;
  std::ostringstream screen;
  Console console(screen, /*terminal=*/false);
  const RunResult result = run_toy(toy_config(dir.path(),
                                              {{"steps", 6},
                                               {"micro_batch_size", 2},
                                               {"log_every", 3},
                                               {"validate_every", 3},
                                               {"sample_every", 3},
                                               {"save_every", 3},
                                               {"optimizer", {{"lr", 1e-2}}}},
                                              {{"pictures", true}}),
                                   {.console = &console});
  CHECK(result.finished);
  CHECK(result.saved);
  CHECK(result.checkpoint == dir.path() / "checkpoints/step-00000006");
  const std::vector<Json> rows = read_rows(dir.path());
  REQUIRE(rows.size() == 6);
  for (const char* key :
       {"step", "loss", "grad_norm", "lr", "step_time_s", "data_time_s", "samples_per_s",
        "tokens_per_s", "tflops_per_s", "mfu", "peak_memory_bytes", "error", "by"})
    CHECK(rows[0].contains(key));
  CHECK(rows[0]["random_init_loss"] == 9.5);
  CHECK(!rows[1].contains("random_init_loss"));
  CHECK(rows[2].contains("val_loss"));
  CHECK(rows[5]["val_loss"] < rows[2]["val_loss"]);
  CHECK(rows[5]["samples"][0] == "samples/step-00000006/frame.png");
  CHECK(rows[0]["by"]["half/even"]["n"] == 1);
  CHECK(rows[0]["peak_memory_bytes"] > 1 << 20);

  const Json config = modules::read_json(dir.path() / "config.json");
  CHECK(config["trainer"]["clip_norm"] == 1.0);
  CHECK(config["recipe"]["width"] == 8);
  for (const char* file : {"log.txt", "report.html", "tensorboard"})
    CHECK(fs::exists(dir.path() / file));
  const Json manifest = modules::read_json(result.checkpoint / "trainer.json");
  CHECK(manifest["step"] == 6);
  CHECK(manifest["next_sample"] == 12);
  CHECK(modules::read_json(result.checkpoint / "model/config.json")["_class_name"] == "ToyModel");
  CHECK_THAT(screen.str(),
             Contains("step 3/6  loss") && Contains("saved") && Contains("random_init_loss 9.5"));
  CHECK_THAT(screen.str(), !Contains("step 4/6"));
}

TEST_CASE("Accumulation over four micro-batches equals one of four", "[trainer]") {
  TempFolder one, four;
  const auto a = run_toy(toy_config(one.path(), {{"steps", 5}, {"micro_batch_size", 4}}));
  const auto b = run_toy(toy_config(four.path(), {{"steps", 5}, {"gradient_accumulation", 4}}));
  CHECK(a.loss == Approx(b.loss).epsilon(1e-5));
  CHECK(largest_difference(weights_of(a.checkpoint), weights_of(b.checkpoint)) < 1e-5);
}

TEST_CASE("Options that must not change the result do not: recompute, report, samples",
          "[trainer]") {
  TempFolder plain, other;
  const auto a = run_toy(toy_config(plain.path(), {{"steps", 4}}));
  const auto b = run_toy(toy_config(other.path(),
                                    {{"steps", 4},
                                     {"activation_checkpointing", "full"},
                                     {"validate_every", 1},
                                     {"sample_every", 1},
                                     {"save_every", 1},
                                     {"ema", {{"kind", "power"}}}},
                                    {{"pictures", true}}));
  CHECK(largest_difference(weights_of(a.checkpoint), weights_of(b.checkpoint)) == 0);
}

TEST_CASE("bf16 with float32 masters trains and resumes exactly", "[trainer]") {
  TempFolder whole, parts;
  const Json settings = {{"steps", 8}, {"precision", "bf16"}, {"ema", {{"kind", "constant"}}}};
  const auto a = run_toy(toy_config(whole.path(), settings));
  int64_t left = 3;
  run_toy(toy_config(parts.path(), settings), {.should_stop = [&] { return --left == 0; }});
  const auto b = run_toy(toy_config(parts.path(), settings));
  CHECK(b.step == 8);
  CHECK(a.loss == b.loss);
  for (const char* file : {"optimizer.safetensors", "ema/diffusion_pytorch_model.safetensors",
                           "model/diffusion_pytorch_model.safetensors"})
    CHECK(modules::read_file(a.checkpoint / file, 1 << 24) ==
          modules::read_file(b.checkpoint / file, 1 << 24));
  CHECK(modules::load_safetensors(a.checkpoint / "model/diffusion_pytorch_model.safetensors")
            .begin()
            ->second.scalar_type() == torch::kBFloat16);
}

TEST_CASE("A partly frozen model saves what it trained and resumes", "[trainer]") {
  TempFolder whole, parts;
  const Json recipe = {{"freeze_first", true}};
  const Json settings = {{"steps", 6}, {"ema", {{"kind", "power"}}}};
  const auto a = run_toy(toy_config(whole.path(), settings, recipe));
  int64_t left = 2;
  run_toy(toy_config(parts.path(), settings, recipe), {.should_stop = [&] { return --left == 0; }});
  const auto b = run_toy(toy_config(parts.path(), settings, recipe));
  CHECK(modules::load_safetensors(a.checkpoint / "trainable.safetensors").size() == 8);
  for (const char* file : {"trainable.safetensors", "ema.safetensors", "optimizer.safetensors"})
    CHECK(modules::read_file(a.checkpoint / file, 1 << 24) ==
          modules::read_file(b.checkpoint / file, 1 << 24));
  // The same checkpoint under another plan is refused with the reason.
  CHECK_THAT(error_of([&] {
               run_toy(toy_config(parts.path(), {{"steps", 9}}));
             }),
             Contains("part of the model frozen"));
}

TEST_CASE("A loss that is not a number stops the run and says where to look", "[trainer]") {
  TempFolder dir;
  const std::string error = error_of([&] {
    run_toy(toy_config(dir.path(), {{"steps", 9}, {"save_every", 2}, {"micro_batch_size", 2}},
                       {{"nan_at", 5}}));
  });
  CHECK_THAT(error, Contains("step 6: loss is nan") && Contains("global samples 10, 11") &&
                        Contains("step-00000004") && Contains("trainer.optimizer.lr"));
  CHECK(read_rows(dir.path()).size() == 5);
  CHECK_THAT(modules::read_file(dir.path() / "log.txt", 1 << 20), Contains("step 6: loss is nan"));
  CHECK(fs::exists(dir.path() / "report.html"));
  // Nothing is lost: with the cause removed the run goes on from step 4.
  const RunResult result =
      run_toy(toy_config(dir.path(), {{"steps", 9}, {"save_every", 2}, {"micro_batch_size", 2}}));
  CHECK(result.finished);
  CHECK(read_rows(dir.path()).size() == 9);
}

TEST_CASE("Resume modes: never refuses, a path starts elsewhere, another shape is named",
          "[trainer]") {
  TempFolder dir, other;
  const auto first = run_toy(toy_config(dir.path(), {{"steps", 4}}));
  CHECK_THAT(error_of([&] {
               run_toy(toy_config(dir.path(), {{"steps", 4}}), {.resume = "never"});
             }),
             Contains("holds checkpoints of an earlier run"));
  const auto second =
      run_toy(toy_config(other.path(), {{"steps", 6}}), {.resume = first.checkpoint.string()});
  CHECK(second.step == 6);
  CHECK(read_rows(other.path()).front()["step"] == 5);
  CHECK_THAT(error_of([&] {
               run_toy(toy_config(dir.path(), {{"steps", 8}}, {{"width", 16}}));
             }),
             Contains("of another shape") && Contains("block_0.up.weight"));
  CHECK_THAT(error_of([&] { run_toy(toy_config(other.path(), {}), {.resume = "no/such/place"}); }),
             Contains("no/such/place: no such checkpoint folder"));
}

TEST_CASE("A plan counts without touching weights", "[trainer]") {
  Config config = toy_config(
      "unused", {{"precision", "bf16"}, {"device", "cpu"}, {"ema", {{"kind", "power"}}}});
  ToyRecipe recipe({.width = 8, .layers = 2});
  const Plan plan = make_plan(config, recipe);
  const int64_t expected = 2 * (8 * 16 + 16 + 16 * 8 + 8);
  CHECK(plan.parameters == expected);
  CHECK(plan.trained == expected);
  // Weights, moments, masters, averages; once more while a checkpoint's copy of them is written.
  CHECK(plan.total_bytes() == 2 * expected * (2 + 8 + 4 + 4));
  CHECK(plan.flops_per_step == 12e3);
  CHECK_THAT(format_plan(plan, config), Contains("predicted peak"));
  config.trainer.checkpoint.background = false;  // no copy: gradients in float32 beside them
  CHECK(make_plan(config, recipe).total_bytes() == expected * (2 + 8 + 4 + 4 + 4));
}
