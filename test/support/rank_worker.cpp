// rank_worker N CONFIG.json: trains CONFIG.json on N ranks of this machine, on made-up latents.
// What the tests of parallel layouts start: real processes, a small model.
//
// COSMOS_TEST_KILL="RANK STEPS FILE" kills a rank by SIGKILL after so many steps of its own, once:
// it leaves FILE, and lives on where FILE is. COSMOS_TEST_RESTARTS=N: --max-restarts.
// COSMOS_TEST_DELAY=SEED: every operation between ranks is late, its results NaN until waited for.

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "modules/registry.h"
#include "test/support/delayed_group.h"
#include "test/support/latent_clips.h"
#include "tools/program.h"
#include "trainer/checkpoint/store.h"
#include "trainer/config/config.h"
#include "trainer/loop/trainer.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/spawn.h"
#include "trainer/recipes/builtin.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;

/// Asked after every step.
std::function<bool()> killer(int64_t rank) {
  const char* text = std::getenv("COSMOS_TEST_KILL");
  if (!text) return {};
  int64_t victim = 0, left = 0;
  std::string file;
  std::istringstream(text) >> victim >> left >> file;
  if (victim != rank || std::filesystem::exists(file)) return {};
  return [left, file]() mutable {
    if (--left > 0) return false;
    if (file != "never") std::ofstream(file) << "killed";
    return std::raise(SIGKILL) == 0;
  };
}

SpawnOptions spawn_options(const std::string& config, std::vector<std::string> overrides) {
  const char* most = std::getenv("COSMOS_TEST_RESTARTS");
  if (!most) return {};
  const std::string dir = load_config(config, std::move(overrides)).run.dir;
  return {.restarts = {.most = std::stoi(most), .progress = [dir]() -> int64_t {
                         const auto steps = CheckpointStore(dir + "/checkpoints", 0).steps();
                         return steps.empty() ? 0 : steps.back();
                       }}};
}

int run(int argc, char** argv) {
  require(argc >= 3, "usage: rank_worker N CONFIG.json [key=value ...]");
  const RankEnv env = read_rank_env();
  const int ranks = std::stoi(argv[1]);
  if (ranks > 1 && env.world == 1)
    return spawn_local(ranks, {argv, argv + argc}, spawn_options(argv[2], {argv + 3, argv + argc}));
  modules::register_builtin_models();
  register_builtin_recipes();
  test::register_latent_clips();
  const Config config = load_config(argv[2], {argv + 3, argv + argc});
  auto world = env.world > 1 ? connect(env, torch::kCPU, std::chrono::seconds(60)) : nullptr;
  if (const char* seed = std::getenv("COSMOS_TEST_DELAY"); seed && world)
    world = test::delayed(*world, std::stoull(seed));
  const RunResult result = Trainer(config, make_recipe(config.recipe, "recipe"),
                                   {.should_stop = killer(env.rank), .world = world})
                               .run();
  return result.finished ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("rank_worker", argc, argv, run);
}
