// Losses that are not to be learned from, slow ranks, GPU errors.

#include "modules/hub/atomic_file.h"
#include "test/support/rank_runs.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/checkpoint/store.h"
#include "trainer/resilience/gpu_errors.h"
#include "trainer/resilience/loss_guard.h"
#include "trainer/resilience/straggler.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

std::string log_of(const fs::path& run) {
  return modules::read_file(run / "log.txt", 1 << 20);
}

}  // namespace

TEST_CASE("A spike stands out from the losses before it", "[resilience]") {
  LossGuard guard(6);
  CHECK(!guard.is_spike(1e9));  // nothing to compare with
  for (int i = 0; i < 200; ++i) guard.accept(1 + 0.01 * (i % 5));
  CHECK(guard.state().size() == LossGuard::kWindow);
  CHECK(!guard.is_spike(1.07));
  CHECK(guard.is_spike(1.2));
  CHECK(!guard.is_spike(0.1));  // a fall is none
  CHECK(!guard.is_spike(std::nan("")));
  LossGuard again(6);
  again.load_state(Json::parse(guard.state().dump()));
  CHECK(again.state() == guard.state());
  for (int i = 0; i < 20; ++i) guard.left_out();
  CHECK_THAT(error_of([&] { guard.left_out(); }), Contains("20 steps in a row were left out"));
  for (int i = 0; i < 3; ++i) guard.rolled_back(7);
  CHECK_THAT(error_of([&] { guard.rolled_back(7); }), Contains("the checkpoint of step 7"));
  guard.rolled_back(8);
}

TEST_CASE("The slowest rank is the one that waits least, with what it is slow in", "[resilience]") {
  const Json row = slowest_rank({{{"data", 0.1}, {"forward", 1.0}, {"wait", 2.0}},
                                 {{"data", 0.2}, {"forward", 1.1}, {"wait", 1.8}},
                                 {{"data", 1.9}, {"forward", 1.2}, {"wait", 0.0}}});
  CHECK(row["slowest_rank"] == 2);
  CHECK(row["slowest_phase"] == "data");
  CHECK(row["slowest_excess_s"] == Approx(1.8));
}

TEST_CASE("GPU errors say whom to ask", "[resilience]") {
  CHECK_THAT(explain_gpu_error("CUDA error: uncorrectable ECC error encountered"),
             Contains("hardware"));
  CHECK_THAT(explain_gpu_error("CUDA out of memory. Tried to allocate 2 GiB"), Contains("memory"));
  CHECK_THAT(explain_gpu_error("CUDA error: an illegal memory access was encountered"),
             Contains("program"));
  CHECK_THAT(explain_gpu_error("NCCL error: remote process exited or there was a network error"),
             Contains("network"));
  CHECK(explain_gpu_error("model/config.json: unknown error").empty());
}

TEST_CASE("A step whose loss is not finite is left out when the config says skip", "[resilience]") {
  TempFolder dir;
  const RunResult result =
      run_toy(toy_config(dir.path(), {{"steps", 6}, {"on_nonfinite", "skip"}}, {{"nan_at", 3}}));
  CHECK(result.finished);
  const auto rows = read_rows(dir.path());
  REQUIRE(rows.size() == 6);
  CHECK(rows[3]["left_out"] == "nonfinite");
  CHECK(rows[3]["loss"].is_null());
  CHECK(!rows[4].contains("left_out"));
  CHECK(rows[5]["loss"].is_number());
  CHECK_THAT(log_of(dir.path()), Contains("step 4: loss is nan") && Contains("is left out"));
}

TEST_CASE("Going back takes the checkpoint's weights and the data behind the step",
          "[resilience]") {
  TempFolder dir, plain;
  const Json settings = {{"steps", 6}, {"save_every", 2}, {"ema", {{"kind", "constant"}}}};
  Json back = settings;
  back["on_nonfinite"] = "roll_back";
  back["keep_checkpoints"] = 0;
  CHECK(run_toy(toy_config(dir.path(), back, {{"nan_at", 3}})).finished);
  const auto rows = read_rows(dir.path());
  REQUIRE(rows.size() == 6);
  CHECK(rows[3]["left_out"] == "nonfinite");
  // Step 4's checkpoint holds what step 2's did: all tensors, bit by bit.
  const CheckpointStore store(dir / "checkpoints");
  const Json manifest = verify_checkpoint(store.path(2));
  for (const auto& [name, entry] : manifest["files"].items())
    CHECK(modules::read_file(store.path(2) / name, 1 << 24) ==
          modules::read_file(store.path(4) / name, 1 << 24));
  CHECK(modules::read_file(store.path(2) / "optimizer.safetensors", 1 << 24) !=
        modules::read_file(store.path(6) / "optimizer.safetensors", 1 << 24));
  // Without one there is nothing to go back to.
  CHECK_THAT(error_of([&] {
               run_toy(toy_config(plain.path(), {{"steps", 6}, {"on_nonfinite", "roll_back"}},
                                  {{"nan_at", 1}}));
             }),
             Contains("step 2: loss is nan") && Contains("there is no checkpoint to go back to"));
}

TEST_CASE("A step that would end too late is abandoned and made again", "[resilience]") {
  TempFolder whole, stopped;
  const Json settings = {{"steps", 4}, {"gradient_accumulation", 6}, {"stop_within_s", 0.3}};
  run_toy(toy_config(whole.path(), settings));
  int64_t asked = 0;  // between micro-batches and after steps: early in the third step
  const RunResult first = run_toy(toy_config(stopped.path(), settings, {{"sleep_ms", 100}}),
                                  {.should_stop = [&] { return ++asked >= 14; }});
  CHECK(first.stopped);
  CHECK(first.saved);
  CHECK(first.step == 2);
  const RunResult second = run_toy(toy_config(stopped.path(), settings));
  CHECK(second.finished);
  for (const char* name : {"model/diffusion_pytorch_model.safetensors", "optimizer.safetensors"})
    CHECK(modules::read_file(whole / ("checkpoints/step-00000004/" + std::string(name)), 1 << 24) ==
          modules::read_file(second.checkpoint / name, 1 << 24));
}

TEST_CASE("ranks agree about one rank's NaN or spike: all skip, go back or stop",
          "[resilience][parallel]") {
  Runs runs;
  Json how = {{"precision", "fp32"}, {"gradient_accumulation", 2}, {"save_every", 2},
              {"steps", 24},         {"keep_checkpoints", 0},      {"log_every", 2}};
  const auto [fault, policy] = GENERATE(
      table<std::string, std::string>({{"nan", "skip"}, {"1000", "roll_back"}, {"1000", "stop"}}));
  how[fault == "nan" ? "on_nonfinite" : "on_spike"] = policy;
  const Answer answer =
      runs.start("run", 2, how, Json::object(), "export COSMOS_TEST_LOSS='1 19 " + fault + "'");
  INFO(fault << " " << policy << ": " << answer.text);
  const fs::path run = runs.dir("run");
  for (const fs::path& folder : {run, run / "ranks/1"})
    CHECK_THAT(log_of(folder), Contains("step 20: loss is"));
  const auto rows = read_rows(run);
  if (policy == "stop") {
    CHECK(answer.code == 1);
    CHECK(rows.size() == 19);
    CHECK_THAT(answer.text, Contains("newest checkpoint: ") && Contains("step-00000018"));
    return;
  }
  REQUIRE(answer.code == 0);
  REQUIRE(rows.size() == 24);
  CHECK(rows[19]["left_out"] == (fault == "nan" ? "nonfinite" : "spike"));
  CHECK(rows[23]["loss"].is_number());
  CHECK(rows[23].contains("slowest_rank"));
  const CheckpointStore store(run / "checkpoints");
  const auto optimizer = [&](int64_t step) {
    return modules::read_file(store.path(step) / "optimizer.safetensors", 1 << 24);
  };
  CHECK((optimizer(20) == optimizer(18)) == (policy == "roll_back"));
}
