// Ranks of one machine, through test/support/group_worker.cpp.

#include <chrono>

#include "ops/core/error.h"
#include "test/support/program.h"
#include "trainer/parallel/spawn.h"

using Catch::Matchers::Contains;
using cosmos::test::Answer;
using cosmos::test::run_program;
using Clock = std::chrono::steady_clock;

namespace {

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Starts `ranks_and_scenario` in the background, runs `then` when it had time to come up (its
/// process is $worker), and gives its exit code.
Answer in_background(const std::string& ranks_and_scenario, const std::string& then) {
  return run_program("group_worker", ranks_and_scenario + " 2>&1 & worker=$!; sleep 1.5; " + then +
                                         "; wait $worker");
}

}  // namespace

TEST_CASE("every rank gets torchrun's variables", "[spawn]") {
  const Answer answer = run_program("group_worker", "2 environment");
  CHECK(answer.code == 0);
  for (const char* rank : {"0", "1"})
    CHECK_THAT(answer.text, Contains(std::string("RANK=") + rank + " WORLD_SIZE=2 LOCAL_RANK=" +
                                     rank + " LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1"));
  CHECK_THAT(answer.text, Contains("OMP_NUM_THREADS=1 "));
  const Answer thousand = run_program(  // cores / ranks, at least one
      "group_worker", "1 environment; env -u OMP_NUM_THREADS " COSMOS_BIN_DIR
                      "/group_worker 1 environment | grep -x \".*OMP_NUM_THREADS=$(nproc) \"");
  INFO(thousand.text);
  CHECK(thousand.code == 0);
}

TEST_CASE("a rank that fails takes the others down within seconds", "[spawn]") {
  const std::string scenario = GENERATE("fail", "stubborn");  // stubborn ones ignore SIGTERM
  const auto start = Clock::now();
  const Answer answer = run_program("group_worker", "3 " + scenario);
  INFO(answer.text);
  CHECK(answer.code == 3);
  CHECK_THAT(answer.text, Contains("rank 2 of 3 (pid ") &&
                              Contains("failed first: exit code 3; the other ranks are stopped\n"));
  CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 1);
  CHECK(seconds_since(start) < 10);
}

TEST_CASE("a rank that ends well hastens nobody", "[spawn]") {
  const Answer answer = run_program("group_worker", "2 uneven");
  CHECK(answer.code == 0);
  CHECK(answer.text == "rank 0 done\n");
}

TEST_CASE("signals go to every rank once, and rank 0 may finish saving", "[spawn]") {
  const auto [name, code] =
      GENERATE(std::pair<std::string, int>{"TERM", 143}, std::pair<std::string, int>{"INT", 130});
  const Answer answer = in_background("2 signal", "kill -" + name + " $worker");
  INFO(answer.text);
  CHECK(answer.code == code);
  CHECK_THAT(answer.text,
             Contains("rank 0 saved") && Contains("rank 1 saved") && !Contains("failed first"));
}

TEST_CASE("ranks die with the process that started them", "[spawn]") {
  // The pids that the ranks printed, each looked for after their parent was killed.
  const Answer answer = run_program(
      "group_worker",
      "2 sleep > /tmp/cosmos_spawn_$$ & worker=$!; sleep 1.5; kill -9 $worker; sleep 0.5; for pid "
      "in $(cat /tmp/cosmos_spawn_$$); do echo rank; kill -0 $pid && grep State: "
      "/proc/$pid/status; done; rm /tmp/cosmos_spawn_$$; true");
  INFO(answer.text);
  CHECK(answer.text.find("rank") != answer.text.rfind("rank"));
  CHECK_THAT(answer.text, !Contains("sleeping") && !Contains("running"));
}

TEST_CASE("what cannot be started is an error", "[spawn]") {
  using cosmos::trainer::spawn_local;
  CHECK_THROWS_WITH(spawn_local(0, {"x"}), Contains("at least 1, got 0"));
  CHECK_THROWS_WITH(spawn_local(2, {}), Contains("command line"));
  std::ostringstream log;
  CHECK(spawn_local(1, {"x"}, {.program = "/nonexistent", .log = &log}) == 127);
  CHECK_THAT(log.str(), Contains("/nonexistent could not be run"));
  const auto nothing = [] { return int64_t{0}; };
  CHECK(spawn_local(
            1, {"false"},
            {.restarts = {.most = 3, .progress = nothing}, .program = "/bin/false", .log = &log}) ==
        1);
  CHECK_THAT(log.str(), Contains("it would fail again") && !Contains("restart 1 of"));
}
