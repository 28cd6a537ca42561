// kill -9 of any rank at any moment: started again, the run ends with the same bits.
//
// A sample by default; COSMOS_KILLS=100 makes the long proof (test/long/kills.sh).

#include <fcntl.h>
#include <iostream>
#include <random>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "test/support/rank_runs.h"
#include "trainer/checkpoint/store.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
namespace fs = std::filesystem;

namespace {

/// rank_worker with two ranks and restarts, and its process.
pid_t start_ranks(const fs::path& config, const fs::path& dir) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::setenv("COSMOS_TEST_RESTARTS", "1000", 1);
  ::setenv("OMP_NUM_THREADS", "1", 1);
  const int log = ::open((dir.string() + ".txt").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0644);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  const std::string run = "run.dir=" + dir.string();
  ::execl(COSMOS_BIN_DIR "/rank_worker", "rank_worker", "2", config.c_str(), run.c_str(), nullptr);
  _exit(127);
}

std::vector<pid_t> children_of(pid_t parent) {
  const std::string pid = std::to_string(parent);
  std::ifstream in("/proc/" + pid + "/task/" + pid + "/children");
  std::vector<pid_t> found;
  for (pid_t child; in >> child;) found.push_back(child);
  return found;
}

bool save_under_way(const fs::path& run) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", error))
    if (entry.path().filename().string().starts_with(".tmp-step")) return true;
  return false;
}

struct Killed {
  int kills = 0;
  int in_saves = 0;  ///< of them
};

/// Lets the run go on, however often it has to be started, and kills up to `most` ranks.
Killed run_and_kill(const fs::path& config, const fs::path& dir, int most, std::mt19937& random) {
  Killed done;
  std::uniform_int_distribution<int> pause(300, 1500), rank(0, 1);
  for (int starts = 0; starts < 2 * most + 2; ++starts) {
    const pid_t launcher = start_ranks(config, dir);
    int status = 0;
    int left = pause(random);
    while (::waitpid(launcher, &status, WNOHANG) == 0) {
      ::usleep(1000);
      // Once in a while the moment is chosen: while a checkpoint is being written.
      if (left < 300 && left > 0 && left % 2 == 0 && save_under_way(dir)) left = 1;
      if (--left != 0 || done.kills == most) continue;
      left = pause(random);
      const auto ranks = children_of(launcher);
      if (ranks.size() != 2) continue;
      const bool saving = save_under_way(dir);
      if (::kill(ranks[static_cast<std::size_t>(rank(random))], SIGKILL) != 0) continue;
      ++done.kills;
      done.in_saves += saving;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return done;
  }
  FAIL("the run did not end: " + modules::read_file(dir.string() + ".txt", 1 << 24));
  return done;
}

}  // namespace

TEST_CASE("ranks that are killed at any moment end with the bits of an undisturbed run",
          "[resilience][parallel][kills]") {
  const char* wanted = std::getenv("COSMOS_KILLS");
  int left = wanted ? std::stoi(wanted) : 3;
  const int total = left;
  Runs runs;
  const fs::path file = runs.dir("config.json");
  modules::write_json(file, config_json({{"precision", "fp32"},
                                         {"steps", 60},
                                         {"gradient_accumulation", 1},
                                         {"save_every", 1},
                                         {"hang_timeout_s", 20}},
                                        Json::object()));
  std::mt19937 random(20261125);
  CHECK(run_and_kill(file, runs.dir("undisturbed"), 0, random).kills == 0);
  const CheckpointStore expected(runs.dir("undisturbed") / "checkpoints");
  const Json manifest = verify_checkpoint(expected.path(60));
  const Outcome undisturbed = Runs::read(runs.dir("undisturbed"), 60);
  Killed all;
  for (int number = 0; left > 0; ++number) {
    const fs::path dir = runs.dir("run-" + std::to_string(number));
    const Killed killed = run_and_kill(file, dir, std::min(left, 10), random);
    INFO("run " << number << ", " << killed.kills << " kills");
    const CheckpointStore got(dir / "checkpoints");
    for (const auto& [name, entry] : manifest["files"].items())
      CHECK(modules::read_file(got.path(60) / name, 1 << 24) ==
            modules::read_file(expected.path(60) / name, 1 << 24));
    CHECK(Runs::read(dir, 60).losses == undisturbed.losses);
    left -= killed.kills;
    all.kills += killed.kills;
    all.in_saves += killed.in_saves;
    fs::remove_all(dir);
  }
  CHECK(all.kills == total);
  if (wanted)
    std::cout << all.kills << " kills, " << all.in_saves
              << " of them while a checkpoint was being written: every run ended with the bits of "
                 "the undisturbed one\n";
}
