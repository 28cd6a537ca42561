// rank_worker N CONFIG.json: trains CONFIG.json on N ranks of this machine, on made-up latents.
// What the tests of parallel layouts start: real processes, a small model.

#include <iostream>

#include "modules/core/random.h"
#include "modules/registry.h"
#include "tools/program.h"
#include "trainer/config/config.h"
#include "trainer/data/registry.h"
#include "trainer/loop/trainer.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/spawn.h"
#include "trainer/recipes/builtin.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;

/// Latents [4, 3, 4, 4] with more spread in the first frame than in the others.
class LatentClips : public Dataset {
 public:
  int64_t size() const override { return 6; }
  Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(9, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    Tensor latents = random.normal({4, 3, 4, 4}) * 0.5;
    latents.select(1, 0).mul_(3);
    return {.index = sample_index, .tensors = {{"latents", latents}}, .text = {}};
  }
};

int run(int argc, char** argv) {
  require(argc >= 3, "usage: rank_worker N CONFIG.json [key=value ...]");
  const RankEnv env = read_rank_env();
  const int ranks = std::stoi(argv[1]);
  if (ranks > 1 && env.world == 1) return spawn_local(ranks, {argv, argv + argc});
  modules::register_builtin_models();
  register_builtin_recipes();
  register_dataset("latent-clips",
                   [](const Json&, const std::string&) { return std::make_shared<LatentClips>(); });
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
