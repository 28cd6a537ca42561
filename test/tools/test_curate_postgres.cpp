// Several cosmos-curate at work on one output folder, and what happens when they are killed.

#ifdef COSMOS_POSTGRES

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "test/support/postgres_server.h"
#include "test/tools/curate_run.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::scene;
using cosmos::test::shell;
using cosmos::test::write_footage;
using Run = cosmos::test::CurateRun;
namespace fs = std::filesystem;

namespace {

constexpr int kVideos = 24;

Json settings(const std::string& store) {
  return {{"clips", {{"mode", "encode"}}},
          {"dedup", {{"near_bits", 0}}},
          {"frame_scores", true},
          {"outputs", {{"shard_clips", 2}, {"cosmos_curate", true}}},
          {"store", store},
          {"lease_s", 1}};
}

/// Footage, some of it alike, one file a copy and one no video, and the set that one process alone
/// makes.
struct Whole : Run {
  std::map<std::string, std::string> expected;

  Whole() {
    for (int k = 0; k < kVideos; ++k)
      write_footage(inputs / ("v" + std::to_string(k) + ".mp4"),
                    scene(std::lround(20 * std::pow(1.12, k / 2)), {10 * k, 60, 250 - 10 * k},
                          {250, 250, 10 * k}));
    fs::copy_file(inputs / "v0.mp4", inputs / "copy.mp4");
    shell("echo 'not a video' > " + (inputs / "text.mp4").string());
    const Answer done = run_program("cosmos-curate", config(settings("")).string());
    INFO(done.text);
    REQUIRE(done.code == 0);
    expected = set();
    REQUIRE(summary()["kept"]["parts"] >= kVideos / 2);
    REQUIRE(summary()["dropped"]["near duplicate"]["parts"] >= 1);
  }
};

/// A worker that is killed after each of the times in turn; then one is left alone, unless it is to
/// stay dead. Prints "killed" for each.
std::string worker(const std::string& config, const std::vector<double>& kills, bool for_good) {
  std::string script = "( ";
  const std::string program = "OMP_NUM_THREADS=1 " COSMOS_BIN_DIR "/cosmos-curate " + config;
  for (const double after : kills)
    script += "timeout -s KILL " + std::to_string(after) + " env " + program +
              "; r=$?; if [ $r = 137 ]; then echo killed; else exit $r; fi; ";
  return script + (for_good ? "true" : program) + " ) & all=\"$all $!\"; ";
}

int count(const std::string& text, const std::string& word) {
  int n = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size()) ++n;
  return n;
}

}  // namespace

TEST_CASE("cosmos-curate takes up the work of one that was killed", "[curate][curate-postgres]") {
  const Whole whole;
  const test::PostgresServer server;
  server.make("takeover");
  Run run;
  run.inputs = whole.inputs;
  const std::string config = run.config(settings(server.url("takeover"))).string();
  // Killed with the first of its videos done.
  const std::string held = "SELECT COUNT(*) FROM sources WHERE owner <> ''";
  shell("OMP_NUM_THREADS=1 " COSMOS_BIN_DIR "/cosmos-curate " + config +
        " >/dev/null 2>&1 & p=$!; while kill -0 $p && [ -z \"$(ls " + run.output.string() +
        "/frame_scores)\" ]; do sleep 0.01; done; kill -9 $p");
  REQUIRE(std::stoi(server.ask("takeover", held)) > 0);
  const Answer heir = run_program("cosmos-curate", config);
  INFO(heir.text);
  REQUIRE(heir.code == 0);
  CHECK(run.set() == whole.expected);
  CHECK(std::stoi(server.ask("takeover", held)) == 0);

  Run other;
  other.inputs = whole.inputs;
  const Answer refused =
      run_program("cosmos-curate", other.config(settings(server.url("takeover"))).string());
  CHECK(refused.code == 1);
  CHECK(refused.text.find("other settings") != std::string::npos);
  const Answer nowhere =
      run_program("cosmos-curate", other.config(settings(server.url("nowhere"))).string());
  CHECK(nowhere.code == 1);
  CHECK(nowhere.text.find("cannot connect") != std::string::npos);
  CHECK(count(nowhere.text, "\n") == 1);
}

TEST_CASE("a cosmos-curate that was paused beyond its leases changes nothing when it wakes up",
          "[curate][curate-postgres]") {
  const Whole whole;
  const test::PostgresServer server;
  server.make("paused");
  Run run;
  run.inputs = whole.inputs;
  const std::string config = run.config(settings(server.url("paused"))).string();
  const std::string at = run.folder.path().string();
  const auto signal = [&](const std::string& name) {
    return shell("kill -" + name + " $(cat " + at + "/pid)").code;
  };
  const auto asked = [&](const std::string& sql) { return std::stoi(server.ask("paused", sql)); };
  // Waits for its first measured video.
  shell("( OMP_NUM_THREADS=1 " COSMOS_BIN_DIR "/cosmos-curate " + config + " >" + at +
        "/log 2>&1 & echo $! >" + at + "/pid; wait $!; echo $? >" + at +
        "/code ) >/dev/null 2>&1 & while ! [ -e " + at + "/code ] && [ -z \"$(ls " +
        run.output.string() + "/frame_scores)\" ]; do sleep 0.01; done");
  // Not within a transaction, whose locks only the end of a connection would free.
  bool paused = false;
  for (int tries = 0; tries < 50 && !paused; ++tries) {
    REQUIRE(signal("STOP") == 0);
    shell("sleep 0.1");
    paused = asked(
                 "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = 'paused' AND state <> "
                 "'idle' AND pid <> pg_backend_pid()") == 0;
    if (!paused) signal("CONT");
  }
  REQUIRE(paused);
  REQUIRE(asked("SELECT COUNT(*) FROM sources WHERE owner <> ''") > 0);

  const Answer heir =
      shell("OMP_NUM_THREADS=1 timeout 120 " COSMOS_BIN_DIR "/cosmos-curate " + config);
  INFO(heir.text);
  REQUIRE(heir.code == 0);
  CHECK(run.set() == whole.expected);
  const std::string rows =
      "SELECT string_agg(g::text, ',' ORDER BY id) || (SELECT string_agg(s.id || s.stage, ',' "
      "ORDER BY s.id) FROM sources AS s) FROM segments AS g";
  const std::string before = server.ask("paused", rows);

  REQUIRE(signal("CONT") == 0);
  shell("for i in $(seq 600); do [ -e " + at + "/code ] && break; sleep 0.1; done");
  REQUIRE(fs::exists(run.folder / "code"));
  CHECK(server.ask("paused", rows) == before);
  CHECK(run.set() == whole.expected);
  CHECK(asked("SELECT COUNT(*) FROM sources WHERE owner <> ''") == 0);
}

// COSMOS_CURATE_KILLS: how many at least; test/long/curate_postgres.sh makes 50.
TEST_CASE("four cosmos-curate on one PostgreSQL, two killed for good, make the set of one",
          "[curate][curate-postgres]") {
  const char* wanted = std::getenv("COSMOS_CURATE_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 3;
  const Whole whole;
  const test::PostgresServer server;
  std::mt19937 random(20261130);
  const auto moment = [&] { return std::uniform_real_distribution(0.2, 2.0)(random); };
  int done = 0, round = 0;
  for (; done < kills; ++round) {
    const std::string database = "round" + std::to_string(round);
    server.make(database);
    Run run;
    run.inputs = whole.inputs;
    const std::string config = run.config(settings(server.url(database))).string();
    const Answer answer = shell(
        worker(config, {moment()}, true) + worker(config, {moment()}, true) +
        worker(config, {moment(), moment()}, false) + worker(config, {moment(), moment()}, false) +
        "for p in $all; do wait $p || exit 1; done");
    INFO("round " << round << ": " << answer.text);
    REQUIRE(answer.code == 0);
    CHECK(run.set() == whole.expected);
    CHECK(count(answer.text, "the sums agree") >= 2);
    done += count(answer.text, "killed\n");
  }
  if (wanted) std::printf("%d kills in %d rounds of four workers\n", done, round);
}

#endif  // COSMOS_POSTGRES
