// bench-sharded-step: the trainer on a DiT and batches that somebody else made, on N ranks; prints
// losses and step times as JSON. test/reference/fsdp2_proof.py runs it beside PyTorch's FSDP2 on
// the same weights and batches, to compare both the numbers and the speed.

#include <cxxopts.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "modules/dit/transformer.h"
#include "modules/hub/registry.h"
#include "modules/hub/safetensors.h"
#include "modules/registry.h"
#include "tools/program.h"
#include "trainer/loop/trainer.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/spawn.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;
namespace fs = std::filesystem;

/// Row i of every tensor of a file is global sample i.
class GivenSamples : public Dataset {
 public:
  explicit GivenSamples(const std::string& file) : tensors_(modules::load_safetensors(file)) {}
  int64_t size() const override { return tensors_.begin()->second.size(0); }
  Sample get(int64_t, uint64_t, int64_t sample_index) override {
    require(sample_index < size(), "sample ", sample_index, ": the file has ", size());
    Sample sample{.index = sample_index, .tensors = {}, .text = {}};
    for (const auto& [name, rows] : tensors_) sample.tensors[name] = rows[sample_index];
    return sample;
  }

 private:
  TensorMap tensors_;
};

/// Mean squared error of the DiT's output against `target`.
class GivenBatches : public Recipe {
 public:
  GivenBatches(const std::string& model, const std::string& file, torch::Dtype dtype)
      : data_(std::make_shared<GivenSamples>(file)),
        model_(std::dynamic_pointer_cast<modules::CosmosTransformer3DModel>(
            modules::load_model(model))),
        dtype_(dtype) {
    require(model_ != nullptr, model, ": expected a CosmosTransformer3DModel folder");
  }
  std::shared_ptr<modules::Model> model() override { return model_; }
  std::shared_ptr<Dataset> train_data() override { return data_; }
  std::shared_ptr<Dataset> validation_data() override { return nullptr; }
  Loss loss(const Batch& batch, const StepContext&) override {
    const auto tensor = [&](const char* name) { return batch.tensors.at(name).to(dtype_); };
    const Tensor target = tensor("target");
    const Tensor output = model_->forward({.hidden_states = tensor("hidden_states"),
                                           .timestep = tensor("timestep"),
                                           .encoder_hidden_states = tensor("encoder_hidden_states"),
                                           .fps = 24});
    return {.value = (output - target).pow(2).mean(), .metrics = {}, .by_label = {}};
  }

 private:
  std::shared_ptr<GivenSamples> data_;
  std::shared_ptr<modules::CosmosTransformer3DModel> model_;
  torch::Dtype dtype_;
};

cxxopts::Options make_options() {
  cxxopts::Options options("bench-sharded-step", "Trains a DiT on given batches on N ranks.");
  // clang-format off
  options.add_options()
    ("nproc", "ranks", cxxopts::value<int>()->default_value("2"))
    ("model", "folder of a CosmosTransformer3DModel", cxxopts::value<std::string>())
    ("inputs", "safetensors; row i is global sample i", cxxopts::value<std::string>())
    ("trainer", "settings of the trainer, as JSON", cxxopts::value<std::string>())
    ("dir", "run folder, must not exist", cxxopts::value<std::string>())
    ("h,help", "this text");
  // clang-format on
  return options;
}

Json summary(const fs::path& dir) {
  Json result = {{"loss", Json::array()}, {"grad_norm", Json::array()}, {"step_s", Json::array()}};
  std::ifstream lines(dir / "metrics.jsonl");
  for (std::string line; std::getline(lines, line);) {
    const Json row = Json::parse(line);
    result["loss"].push_back(row.at("loss"));
    result["grad_norm"].push_back(row.at("grad_norm"));
    result["step_s"].push_back(row.at("step_time_s"));
    result["peak_memory_bytes"] = row.at("peak_memory_bytes");
  }
  return result;
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const auto args = options.parse(argc, argv);
  if (args.count("help") > 0) return std::cout << options.help() << '\n', 0;
  for (const char* name : {"model", "inputs", "trainer", "dir"})
    require(args.count(name) > 0, "--", name, " is missing");
  const RankEnv env = read_rank_env();
  const int ranks = args["nproc"].as<int>();
  if (ranks > 1 && env.world == 1) return spawn_local(ranks, {argv, argv + argc});
  modules::register_builtin_models();
  const Config config = parse_config({{"recipe", {{"type", "given-batches"}}},
                                      {"trainer", Json::parse(args["trainer"].as<std::string>())},
                                      {"run", {{"dir", args["dir"].as<std::string>()}}}},
                                     "command line");
  const bool wide = config.trainer.precision == "fp64";
  const auto world = env.world > 1 ? connect(env, torch::kCPU, std::chrono::seconds(60)) : nullptr;
  auto recipe = std::make_shared<GivenBatches>(args["model"].as<std::string>(),
                                               args["inputs"].as<std::string>(),
                                               wide ? torch::kFloat64 : torch::kFloat32);
  Trainer(config, recipe, {.world = world}).run();
  if (env.rank == 0) std::cout << summary(config.run.dir).dump() << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-sharded-step", argc, argv, run);
}
