// rank_worker N CONFIG.json: trains CONFIG.json on N ranks of this machine, on made-up latents.
// What the tests of parallel layouts start: real processes, a small model.
//
// COSMOS_TEST_KILL="RANK STEPS FILE" kills a rank by SIGKILL after so many steps of its own, once:
// it leaves FILE, and lives on where FILE is. COSMOS_TEST_RESTARTS=N: --max-restarts.
// COSMOS_TEST_DELAY=SEED: every operation between ranks is late, its results NaN until waited for.
// COSMOS_TEST_LOSS="RANK STEP FACTOR" multiplies one rank's loss of one step (0 is the first), nan
// included. COSMOS_TEST_PEAK=FILE: rank R leaves the most bytes of tensors that it held while it
// built the model, in FILE + R; COSMOS_TEST_PEAK_OF=run: while it built and trained it.
// COSMOS_TEST_HANG="RANK STEP stop|sleep": SIGSTOP, or a sleep of a minute, in that loss.

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <thread>

#include "modules/registry.h"
#include "test/support/counted_memory.h"
#include "test/support/delayed_group.h"
#include "test/support/language_recipe.h"
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

/// The recipe, with a fault in one rank's loss of one step.
class FaultyRecipe : public Recipe {
 public:
  FaultyRecipe(std::shared_ptr<Recipe> inner, int64_t rank) : inner_(std::move(inner)) {
    int64_t victim = -1;
    if (const char* text = std::getenv("COSMOS_TEST_LOSS")) {
      std::string factor;
      std::istringstream(text) >> victim >> at_ >> factor;
      factor_ = std::stod(factor);
    }
    if (const char* text = std::getenv("COSMOS_TEST_HANG"))
      std::istringstream(text) >> victim >> at_ >> how_;
    if (victim != rank) at_ = -1;
  }
  std::shared_ptr<modules::Model> model() override { return inner_->model(); }
  std::shared_ptr<modules::Model> model_without_weights() override {
    return inner_->model_without_weights();
  }
  void read_weights(const TakeWeight& take) override { inner_->read_weights(take); }
  void prepare(const Batch& batch, const StepContext& context) override {
    inner_->prepare(batch, context);
  }
  std::shared_ptr<Dataset> train_data() override { return inner_->train_data(); }
  std::shared_ptr<Dataset> validation_data() override { return inner_->validation_data(); }
  std::map<std::string, modules::FileContent> adapter_files() override {
    return inner_->adapter_files();
  }
  std::optional<double> loss_weight(const Batch& batch) const override {
    return inner_->loss_weight(batch);
  }
  Loss loss(const Batch& batch, const StepContext& context) override {
    Loss loss = inner_->loss(batch, context);
    if (context.step != at_ || !context.training) return loss;
    if (how_ == "stop") std::raise(SIGSTOP);
    if (how_ == "sleep") std::this_thread::sleep_for(std::chrono::minutes(1));
    loss.value = loss.value * factor_;
    return loss;
  }

 private:
  std::shared_ptr<Recipe> inner_;
  int64_t at_ = -1;
  double factor_ = 1;
  std::string how_;
};

SpawnOptions spawn_options(const std::string& config, std::vector<std::string> overrides) {
  const char* most = std::getenv("COSMOS_TEST_RESTARTS");
  if (!most) return {};
  const std::string dir = load_config(config, std::move(overrides)).run.dir;
  return {.restarts = {.most = std::stoi(most), .progress = [dir]() -> int64_t {
                         const auto steps = CheckpointStore(dir + "/checkpoints").steps();
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
  test::register_language();
  const Config config = load_config(argv[2], {argv + 3, argv + argc});
  auto world = env.world > 1 ? connect(env, torch::kCPU, std::chrono::seconds(60)) : nullptr;
  if (const char* seed = std::getenv("COSMOS_TEST_DELAY"); seed && world)
    world = test::delayed(*world, std::stoull(seed));
  const auto recipe =
      std::make_shared<FaultyRecipe>(make_recipe(config.recipe, "recipe"), env.rank);
  const char* peak_file = std::getenv("COSMOS_TEST_PEAK");
  const bool of_run = std::getenv("COSMOS_TEST_PEAK_OF") != nullptr;
  const auto leave_peak = [&](const test::CountedMemory& memory) {
    std::ofstream(peak_file + std::to_string(env.rank)) << memory.peak();
  };
  test::CountedMemory* memory = peak_file ? &test::CountedMemory::install() : nullptr;
  Trainer trainer(config, recipe,
                  {.should_stop = killer(env.rank),
                   .world = world,
                   .last_words = tools::last_words("rank_worker")});
  if (memory && !of_run) leave_peak(*memory);
  const RunResult result = trainer.run();
  if (memory && of_run) leave_peak(*memory);
  return result.finished ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("rank_worker", argc, argv, run);
}
