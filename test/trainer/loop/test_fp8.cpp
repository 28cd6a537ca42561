// Training with 8-bit products, in one process.

#include <catch2/catch.hpp>

#include "modules/hub/safetensors.h"
#include "modules/hub/weight_folder.h"
#include "test/trainer/toy_recipe.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
namespace fs = std::filesystem;

namespace {

Json how(const std::string& scaling, int64_t steps) {
  return {{"precision", "fp8"},
          {"fp8", {{"scaling", scaling}, {"history", 3}, {"target_modules", {"up", "down"}}}},
          {"steps", steps},
          {"micro_batch_size", 8},
          {"gradient_accumulation", 2},
          {"optimizer", {{"lr", 1e-2}, {"weight_decay", 0}}},
          {"save_every", 10}};
}

Config config_of(const fs::path& dir, const Json& trainer) {
  return toy_config(dir, trainer, {{"width", 16}});
}

std::vector<double> losses_of(const fs::path& run) {
  std::vector<double> losses;
  for (const Json& row : read_rows(run)) losses.push_back(row.at("loss"));
  return losses;
}

}  // namespace

TEST_CASE("8-bit products train, and not to the same bits as bf16's", "[trainer][fp8]") {
  TempFolder dir;
  Json bf16 = how("current", 40);
  bf16["precision"] = "bf16";
  run_toy(config_of(dir / "bf16", bf16));
  const auto wanted = losses_of(dir / "bf16");
  for (const char* scaling : {"current", "delayed", "block"}) {
    INFO(scaling);
    run_toy(config_of(dir / scaling, how(scaling, 40)));
    const auto losses = losses_of(dir / scaling);
    CHECK(losses.back() < 0.5 * losses.front());
    CHECK(losses.back() == Approx(wanted.back()).epsilon(0.15));
    CHECK(losses != wanted);
    const fs::path saved = dir / scaling / "checkpoints" / "step-00000040";
    CHECK(fs::exists(saved / "fp8.safetensors") == (std::string(scaling) == "delayed"));
    for (const auto& [name, weight] : modules::WeightFolder(saved / "model").tensors())
      CHECK(weight.scalar_type() == torch::kBFloat16);
    const auto state = modules::load_safetensors(saved / "optimizer.safetensors");
    for (const auto& [name, moment] : state)
      CHECK((name.find("step") == 0 || moment.scalar_type() == torch::kFloat32));
  }
}

TEST_CASE("a run in 8 bits goes on from a checkpoint bit by bit, scales included",
          "[trainer][fp8]") {
  for (const char* scaling : {"current", "delayed"}) {
    INFO(scaling);
    TempFolder dir;
    run_toy(config_of(dir / "through", how(scaling, 14)));
    run_toy(config_of(dir / "halves", how(scaling, 10)));
    const Config rest = config_of(dir / "halves", how(scaling, 14));
    run_toy(rest);
    CHECK(losses_of(dir / "halves") == losses_of(dir / "through"));
    if (std::string(scaling) != "delayed") continue;
    // Without the scales the first step takes its own, which differ.
    const auto kept =
        modules::load_safetensors(dir / "through/checkpoints/step-00000014" / "fp8.safetensors");
    CHECK(kept.at("amax_history").sizes() == at::IntArrayRef({6, 3, 3}));
    CHECK((kept.at("amax_history").slice(-1, 1) > 0).all().item<bool>());
    CHECK((kept.at("scale") < 1).all().item<bool>());
  }
}

TEST_CASE("settings of 8-bit products are checked", "[trainer][fp8]") {
  TempFolder dir;
  Json bad = how("curent", 1);
  bad["fp8"]["history"] = 0;
  bad["fp8"]["gradient"] = "e3m4";
  const std::string text = error_of([&] { run_toy(config_of(dir / "bad", bad)); });
  CHECK_THAT(text, Catch::Contains("trainer.fp8.scaling: expected current | delayed | block, got "
                                   "\"curent\" (did you mean current?)") &&
                       Catch::Contains("trainer.fp8.history: expected 1 or more, got 0") &&
                       Catch::Contains("trainer.fp8.gradient"));
}
