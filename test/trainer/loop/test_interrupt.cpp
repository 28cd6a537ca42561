// Runs that are killed, in a process of their own: this program started again with one hidden test
// case, which trains what the environment describes.

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <iostream>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/loop/stop_signal.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

pid_t start_child(const fs::path& dir, const std::string& sleep_ms) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::setenv("COSMOS_TOY_DIR", dir.c_str(), 1);
  ::setenv("COSMOS_TOY_SLEEP", sleep_ms.c_str(), 1);
  ::setenv("OMP_NUM_THREADS", "1", 1);
  const int log = ::open((dir / "child.txt").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0644);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  ::execl("/proc/self/exe", "test_trainer", "[.child]", nullptr);
  _exit(127);
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int64_t lines_in(const fs::path& file) {
  std::ifstream in(file);
  int64_t count = 0;
  for (std::string line; std::getline(in, line);) ++count;
  return count;
}

void wait_for_lines(const fs::path& file, int64_t count) {
  for (int i = 0; i < 3000 && lines_in(file) < count; ++i) ::usleep(10000);
  REQUIRE(lines_in(file) >= count);
}

Json child_settings() {
  return {{"steps", 20},
          {"save_every", 5},
          {"optimizer", {{"lr", 1e-2}}},
          {"schedule", {{"kind", "cosine"}, {"warmup_steps", 3}}},
          {"ema", {{"kind", "power"}}}};
}

void check_same_run(const fs::path& a, const fs::path& b) {
  const auto rows_a = read_rows(a), rows_b = read_rows(b);
  REQUIRE(rows_a.size() == 20);
  REQUIRE(rows_b.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) {
    INFO("step " << i + 1);
    for (const char* key : {"step", "loss", "grad_norm", "lr", "error", "by"})
      CHECK(rows_a[i][key] == rows_b[i][key]);
  }
  for (const char* file : {"model/diffusion_pytorch_model.safetensors",
                           "ema/diffusion_pytorch_model.safetensors", "optimizer.safetensors"})
    CHECK(modules::read_file(a / "checkpoints/step-00000020" / file, 1 << 24) ==
          modules::read_file(b / "checkpoints/step-00000020" / file, 1 << 24));
}

}  // namespace

TEST_CASE("Trains what the environment describes", "[.child]") {
  const char* dir = std::getenv("COSMOS_TOY_DIR");
  REQUIRE(dir != nullptr);
  Console console(std::cout, false);
  const StopSignal signal;
  const RunResult result =
      run_toy(toy_config(dir, child_settings(),
                         {{"sleep_ms", std::stoll(std::getenv("COSMOS_TOY_SLEEP"))}}),
              {.console = &console, .should_stop = [&] { return signal.received() != 0; }});
  CHECK(result.saved);
  if (!result.finished) ::_exit(128 + signal.received());
}

TEST_CASE("20 steps in one go equal 10, kill -9 and 10 more: losses and weights, bit by bit",
          "[trainer][interrupt]") {
  TempFolder whole, killed;
  CHECK(wait_for(start_child(whole.path(), "0")) == 0);
  const pid_t child = start_child(killed.path(), "40");
  wait_for_lines(killed.path() / "metrics.jsonl", 12);
  ::kill(child, SIGKILL);
  CHECK(wait_for(child) == -SIGKILL);
  const auto at_kill = lines_in(killed.path() / "metrics.jsonl");
  CHECK(at_kill < 20);
  CHECK(wait_for(start_child(killed.path(), "0")) == 0);
  CHECK_THAT(modules::read_file(killed.path() / "log.txt", 1 << 20),
             Contains("resumed after step 10"));
  check_same_run(whole.path(), killed.path());

  // Killed while a checkpoint was being written: what is left is swept away, never loaded.
  fs::create_directories(killed.path() / "checkpoints/.tmp-step-00000099/model");
  CHECK(wait_for(start_child(killed.path(), "0")) == 0);
  CHECK(fs::exists(killed.path() / "checkpoints/step-00000020"));
}

TEST_CASE("SIGTERM finishes the step, saves, and the same command goes on exactly",
          "[trainer][interrupt]") {
  TempFolder whole, stopped;
  CHECK(wait_for(start_child(whole.path(), "0")) == 0);
  const pid_t child = start_child(stopped.path(), "40");
  wait_for_lines(stopped.path() / "metrics.jsonl", 7);
  ::kill(child, SIGTERM);
  CHECK(wait_for(child) == 128 + SIGTERM);
  const auto steps = CheckpointStore(stopped.path() / "checkpoints").steps();
  REQUIRE(!steps.empty());
  CHECK(steps.back() == lines_in(stopped.path() / "metrics.jsonl"));
  CHECK(wait_for(start_child(stopped.path(), "0")) == 0);
  check_same_run(whole.path(), stopped.path());
}
