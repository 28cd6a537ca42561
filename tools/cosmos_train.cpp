// cosmos-train CONFIG.json [key.path=value ...]: trains what the config describes.

#include <ATen/Parallel.h>
#include <cxxopts.hpp>
#include <iostream>
#include <unistd.h>

#include "modules/core/device.h"
#include "modules/hub/json_file.h"
#include "modules/registry.h"
#include "tools/program.h"
#include "trainer/loop/plan.h"
#include "trainer/loop/step_time.h"
#include "trainer/loop/stop_signal.h"
#include "trainer/loop/trainer.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/spawn.h"
#include "trainer/recipes/builtin.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;

constexpr std::chrono::minutes kTimeout(10);  // of a collective, as NCCL's default

cxxopts::Options make_options() {
  cxxopts::Options options("cosmos-train",
                           "Trains a model.\n\n"
                           "Exit codes: 0 done, 1 error, 2 wrong usage, 130 or 143 stopped by a "
                           "signal after saving (run the same command to go on).\n");
  options.custom_help("CONFIG.json [key.path=value ...] [OPTION...]").positional_help("");
  // clang-format off
  options.add_options()
    ("check", "validate the config, print it with every default, and stop")
    ("plan", "print parameters, FLOPs and predicted memory, and stop; nothing is run or read")
    ("simulate", "with --plan: step times on up to 16384 ranks, from a file of measured speeds",
     cxxopts::value<std::string>())
    ("measure-speeds", "measure products and, with --nproc, links; write them for --simulate, and stop",
     cxxopts::value<std::string>())
    ("resume", "auto: continue the run folder; never: refuse one with checkpoints; or a checkpoint",
     cxxopts::value<std::string>()->default_value("auto"))
    ("nproc", "ranks on this machine, which share the model (trainer.parallel); or of --plan",
     cxxopts::value<int>()->default_value("1"))
    ("max-restarts", "with --nproc: start all ranks again after one died, from the newest checkpoint",
     cxxopts::value<int>()->default_value("0"))
    ("schema", "print the JSON Schema of config files, and stop")
    ("h,help", "this text")
    ("arguments", "", cxxopts::value<std::vector<std::string>>());
  // clang-format on
  options.parse_positional({"arguments"});
  return options;
}

int train(const Config& config, std::shared_ptr<Recipe> recipe, const std::string& resume,
          const RankEnv& env) {
  Console console(std::cerr, ::isatty(STDERR_FILENO) != 0);
  const StopSignal signal;
  const torch::Device device = modules::choose_device(
      config.trainer.device, config.source + ": trainer.device", env.local_rank);
  const RunResult result =
      Trainer(config, std::move(recipe),
              {.resume = resume,
               .console = &console,
               .should_stop = [&] { return signal.received() != 0; },
               .world = env.world > 1 ? connect(env, device, kTimeout) : nullptr,
               .local_rank = env.local_rank})
          .run();
  if (env.rank > 0) return result.saved ? 0 : 1;  // the first rank speaks for all
  if (!result.saved) {
    console.line("the last checkpoint could not be written; free some space and run again");
    return 1;
  }
  if (result.finished) {
    console.line("done: " + (config.run.dir + "/report.html") + " and " +
                 result.checkpoint.string());
    return 0;
  }
  console.line("stopped after step " + std::to_string(result.step) +
               "; the same command goes on from " + result.checkpoint.string());
  return 128 + signal.received();
}

int measure(const Config& config, const RankEnv& env, const std::string& file) {
  const torch::Device device = modules::choose_device(
      config.trainer.device, config.source + ": trainer.device", env.local_rank);
  const auto world = env.world > 1 ? connect(env, device, kTimeout) : nullptr;
  const auto dtype = config.trainer.low_precision() ? torch::kBFloat16 : torch::kFloat32;
  if (config.trainer.threads > 0) at::set_num_threads(static_cast<int>(config.trainer.threads));
  MachineSpeeds speeds = measure_speeds(device, dtype, world.get(), env.local_world);
  if (env.rank == 0) modules::write_json(file, modules::write_fields(speeds));
  return 0;
}

/// Later starts go on from the newest checkpoint, whatever the first was told.
Restarts restarts_of(const Config& config, int most, std::vector<std::string> argv) {
  argv.push_back("--resume=auto");
  return {.most = most,
          .progress = [dir = config.run.dir]() -> int64_t {
            const auto steps = CheckpointStore(std::filesystem::path(dir) / "checkpoints").steps();
            return steps.empty() ? 0 : steps.back();
          },
          .argv = std::move(argv)};
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const cxxopts::ParseResult args = options.parse(argc, argv);
  if (args.count("help")) return std::cout << options.help() << '\n', 0;
  if (args.count("schema")) return std::cout << config_schema().dump(2) << '\n', 0;
  if (args.count("arguments") == 0) return std::cerr << options.help() << '\n', 2;
  const int nproc = args["nproc"].as<int>();
  require(nproc >= 1, "--nproc: expected 1 or more, got ", nproc);
  const int max_restarts = args["max-restarts"].as<int>();
  require(max_restarts >= 0, "--max-restarts: expected 0 or more, got ", max_restarts);
  modules::register_builtin_models();
  register_builtin_recipes();
  auto arguments = args["arguments"].as<std::vector<std::string>>();
  const std::string file = arguments.front();
  const Config config = load_config(file, {arguments.begin() + 1, arguments.end()});
  validate(config);
  const std::shared_ptr<Recipe> recipe = make_recipe(config.recipe, file + ": recipe");
  require(!args.count("simulate") || args.count("plan"),
          "--simulate: expected --plan beside it, got none; nothing is simulated while training");
  if (args.count("simulate")) {
    const MachineSpeeds speeds = read_speeds(args["simulate"].as<std::string>());
    return std::cout << scaling_tables(config, *recipe, speeds), 0;
  }
  if (args.count("plan")) {
    const ParallelConfig& p = config.trainer.parallel;
    const int64_t ranks = nproc > 1 ? nproc : std::max<int64_t>(1, p.shard) * p.replica;
    return std::cout << format_plan(make_plan(config, *recipe, ranks), config), 0;
  }
  if (args.count("check")) {
    Json all = resolved(config);
    all["recipe"].update(recipe->resolved_config());
    return std::cout << all.dump(2) << '\n', 0;
  }
  const RankEnv env = read_rank_env();
  const bool launched = env.source != RankEnv().source;
  if (!launched && (nproc > 1 || max_restarts > 0))
    return spawn_local(nproc, {argv, argv + argc},
                       {.restarts = restarts_of(config, max_restarts, {argv, argv + argc})});
  if (args.count("measure-speeds"))
    return measure(config, env, args["measure-speeds"].as<std::string>());
  return train(config, recipe, args["resume"].as<std::string>(), env);
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-train", argc, argv, run);
}
