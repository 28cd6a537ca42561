// rank_worker N CONFIG.json: trains CONFIG.json on N ranks of this machine, on made-up latents.
// What the tests of parallel layouts start: real processes, a small model.

#include <iostream>

#include "modules/registry.h"
#include "test/support/latent_clips.h"
#include "tools/program.h"
#include "trainer/config/config.h"
#include "trainer/loop/trainer.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/spawn.h"
#include "trainer/recipes/builtin.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;

int run(int argc, char** argv) {
  require(argc >= 3, "usage: rank_worker N CONFIG.json [key=value ...]");
  const RankEnv env = read_rank_env();
  const int ranks = std::stoi(argv[1]);
  if (ranks > 1 && env.world == 1) return spawn_local(ranks, {argv, argv + argc});
  modules::register_builtin_models();
  register_builtin_recipes();
  test::register_latent_clips();
  const Config config = load_config(argv[2], {argv + 3, argv + argc});
  const auto world = env.world > 1 ? connect(env, torch::kCPU, std::chrono::seconds(60)) : nullptr;
  const RunResult result =
      Trainer(config, make_recipe(config.recipe, "recipe"), {.world = world}).run();
  return result.finished ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("rank_worker", argc, argv, run);
}
