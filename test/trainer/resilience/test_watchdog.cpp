// Hangs: told by rank and operation, in time.

#include <chrono>
#include <regex>
#include <thread>

#include "modules/hub/atomic_file.h"
#include "test/support/rank_runs.h"
#include "trainer/resilience/flight_record.h"
#include "trainer/resilience/watchdog.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

Watchdog::Beat beat(int64_t rank, int64_t collectives, const std::string& operation,
                    const std::string& phase = "forward") {
  return {.rank = rank,
          .place = {.step = 6, .phase = phase, .operation = operation, .collectives = collectives},
          .host = "node7",
          .pid = 123};
}

std::string text_of(const fs::path& file) {
  return modules::read_file(file, 1 << 24);
}

}  // namespace

TEST_CASE("A flight record knows where the rank is and where its time went", "[resilience]") {
  FlightRecord record(4);
  record.enter("forward", 2);
  for (int i = 0; i < 6; ++i) {
    const int64_t number = record.started("shard", "all_gather", 100 + i);
    record.waiting(number);
    if (i == 5) break;
    std::this_thread::sleep_for(milliseconds(4));
    record.finished(number);
  }
  const FlightRecord::Place place = record.place();
  CHECK(place.step == 2);
  CHECK(place.phase == "forward");
  CHECK(place.operation == "group shard: all_gather");
  CHECK(place.collectives == 6);
  const std::string text = record.text();
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);  // the last four
  CHECK_THAT(text, Contains("#3 step 2 forward: group shard: all_gather, 102 bytes") &&
                       Contains("#6 step 2 forward: group shard: all_gather, 105 bytes") &&
                       Contains("NOT DONE"));
  CHECK(record.progress() == 12);
  record.finished(6);
  CHECK(record.place().operation.empty());
  record.enter("backward", 2);
  const auto times = record.take_times();
  CHECK(times.at("wait") >= 0.02);
  CHECK(times.at("forward") < times.at("wait"));
  CHECK(record.take_times().count("forward") == 0);
}

TEST_CASE("The rank that stands still, or is behind, is blamed", "[resilience]") {
  const std::string wait = "group shard: all_gather";
  CHECK_THAT(
      Watchdog::blame({beat(0, 7, wait), beat(1, 6, wait)}, {false, true}),
      Contains("rank 1 is stuck: its process (node7, pid 123) does not run; it was last in "
               "group shard: all_gather (its number 6), forward of step 7; the others wait in "
               "group shard: all_gather (its number 7), forward of step 7"));
  CHECK_THAT(Watchdog::blame({beat(0, 7, wait), beat(1, 5, wait), beat(2, 7, wait)},
                             {false, false, false}),
             Contains("rank 1 is stuck: in group shard"));
  CHECK_THAT(Watchdog::blame({beat(0, 7, wait), beat(1, 7, "", "data")}, {false, false}),
             Contains("rank 1 is stuck: in no collective (its number 7), data of step 7"));
  CHECK_THAT(Watchdog::blame({beat(0, 7, wait), beat(1, 7, wait)}, {false, false}),
             Contains("all ranks are stuck, each in group shard: all_gather"));
}

TEST_CASE("A watchdog barks once nothing moves, and not before", "[resilience]") {
  TempFolder dir;
  FlightRecord record;
  std::atomic<bool> ended{false};
  std::string line;
  const Watchdog watchdog(record, {.dir = dir.path(),
                                   .timeout = milliseconds(400),
                                   .print = [&](const std::string& text) { line = text; },
                                   .end = [&] { ended = true; }});
  for (int i = 0; i < 30; ++i) {
    std::this_thread::sleep_for(milliseconds(30));
    record.enter("forward", i);
  }
  CHECK(!ended);
  const auto begin = std::chrono::steady_clock::now();
  record.waiting(record.started("shard", "reduce_scatter", 8));
  while (!ended && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20))
    std::this_thread::sleep_for(milliseconds(10));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  REQUIRE(ended);
  CHECK(took.count() > 0.35);
  CHECK(took.count() < 2.4);
  CHECK_THAT(line, Contains("rank 0 is stuck: in group shard: reduce_scatter (its number 1), "
                            "forward of step 30"));
  CHECK_THAT(text_of(dir / "rank-0.txt"),
             Contains("NOT DONE") && Contains("thread ") && Contains("test_trainer"));
}

TEST_CASE("a rank that stops or sleeps is named, with its operation, within the timeout + 2 s",
          "[resilience][parallel]") {
  Runs runs;
  const std::string how = GENERATE("stop", "sleep");
  const auto begin = std::chrono::steady_clock::now();
  const Answer answer = runs.start("hang", 2, {{"gradient_accumulation", 2}, {"hang_timeout_s", 3}},
                                   Json::object(), "export COSMOS_TEST_HANG='1 2 " + how + "'");
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  INFO(answer.text);
  CHECK((answer.code == 134 || answer.code == 137));
  CHECK(took.count() < 15);
  std::smatch found;
  const std::regex said("rank_worker: watchdog: no rank got on for ([0-9.]+) s; rank 1 is stuck: ");
  REQUIRE(std::regex_search(answer.text, found, said));
  CHECK(std::stod(found[1]) < 5);
  // What is known of a stopped rank is its last heartbeat; what the others wait for says the rest.
  if (how == "stop")
    CHECK_THAT(answer.text,
               Contains("does not run") && Contains("the others wait in group model: "));
  else
    CHECK_THAT(answer.text, Contains("forward of step 3"));
  if (how == "sleep")
    CHECK_THAT(text_of(runs.dir("hang") / "watch/rank-1.txt"), Contains("nanosleep"));
  CHECK_THAT(text_of(runs.dir("hang") / "watch/rank-0.txt"), Contains("NOT DONE"));
}
