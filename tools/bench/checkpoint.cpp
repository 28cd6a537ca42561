// What checkpoints cost: a training that saves against one that does not, and the disk's speed as
// saves and loads see it. tools/bench/checkpoint.sh puts the numbers together.
//
//   bench-checkpoint train DIR --steps 500 --save-every 50 [--width 512 --layers 12 --tokens 256]
//   bench-checkpoint save DIR --mib 1024      writes a checkpoint of random tensors
//   bench-checkpoint load DIR                 reads it into memory that is there already
//   bench-checkpoint verify DIR               checks its checksums
//
// Prints one JSON object. "save_every": 0 saves nothing, not even at the end.

#include <chrono>
#include <cxxopts.hpp>
#include <iostream>

#include "modules/core/linear.h"
#include "modules/core/random.h"
#include "modules/hub/safetensors.h"
#include "tools/program.h"
#include "trainer/checkpoint/store.h"
#include "trainer/loop/trainer.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Size {
  int64_t width = 512, layers = 12, tokens = 256;
};

/// x + W2 gelu(W1 x), `layers` times: steps whose cost and state are easy to choose.
class Stack : public modules::Model {
 public:
  explicit Stack(const Size& size) : size_(size) {
    for (int64_t i = 0; i < 2 * size.layers; ++i)
      layers_.push_back(register_module("layer_" + std::to_string(i),
                                        modules::Linear(i % 2 ? 4 * size.width : size.width,
                                                        i % 2 ? size.width : 4 * size.width)));
  }
  Tensor forward(Tensor x) {
    for (std::size_t i = 0; i < layers_.size(); i += 2)
      x = x + layers_[i + 1]->forward(torch::gelu(layers_[i]->forward(x))) * 0.1;
    return x;
  }
  std::string class_name() const override { return "Stack"; }
  Json config_json() const override { return {{"width", size_.width}, {"layers", size_.layers}}; }
  TensorMap run(const std::string&, const TensorMap& in) override {
    return {{"sample", forward(in.at("x"))}};
  }

 private:
  Size size_;
  std::vector<modules::Linear> layers_;
};

class Noise : public Dataset {
 public:
  explicit Noise(const Size& size) : size_(size) {}
  int64_t size() const override { return 64; }
  Sample get(int64_t item, uint64_t seed, int64_t) override {
    modules::Philox random(seed, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    Sample sample;
    sample.tensors["x"] = random.normal({size_.tokens, size_.width});
    return sample;
  }

 private:
  Size size_;
};

class Reconstruct : public Recipe {
 public:
  explicit Reconstruct(const Size& size) : size_(size), model_(std::make_shared<Stack>(size)) {}
  std::shared_ptr<modules::Model> model() override { return model_; }
  std::shared_ptr<Dataset> train_data() override { return std::make_shared<Noise>(size_); }
  std::shared_ptr<Dataset> validation_data() override { return nullptr; }
  Loss loss(const Batch& batch, const StepContext&) override {
    const Tensor& x = batch.tensors.at("x");
    return {.value = (model_->forward(x) - torch::sin(x)).square().mean(),
            .metrics = {},
            .by_label = {}};
  }

 private:
  Size size_;
  std::shared_ptr<Stack> model_;
};

/// Timed from the end of the first step, which pays for memory, to that of the last, which saves in
/// either case and is not counted.
Json train(const fs::path& dir, int64_t steps, int64_t save_every, const Size& size) {
  const Json config = {{"recipe", {{"type", "stack"}}},
                       {"trainer",
                        {{"steps", steps + 1},
                         {"save_every", save_every},
                         {"threads", 1},
                         {"ema", {{"kind", "power"}}}}},
                       {"run", {{"dir", dir.string()}}}};
  Clock::time_point begin;
  double seconds = 0;
  const auto watch = [&, step = int64_t{0}]() mutable {
    if (++step == 1) begin = Clock::now();
    if (step == steps + 1) seconds = seconds_since(begin);
    return false;
  };
  Trainer trainer(parse_config(config, "bench"), std::make_shared<Reconstruct>(size),
                  {.should_stop = watch});
  int64_t parameters = 0;
  for (const Tensor& p : trainer.model().parameters()) parameters += p.numel();
  trainer.run();
  return {{"steps", steps}, {"seconds", seconds}, {"state_bytes", parameters * 16}};
}

/// One rank's state of `mib` in tensors of 64 MiB.
Json save(const fs::path& dir, int64_t mib, int64_t threads) {
  StateFile file;
  for (int64_t i = 0; i < mib / 64; ++i) {
    const Tensor tensor = torch::rand({16, 1 << 20});
    file.tensors["tensor_" + std::to_string(i)] = {.info = modules::tensor_info(tensor),
                                                   .region = whole_region(tensor.sizes()),
                                                   .data = tensor};
  }
  CheckpointStore store(dir);
  const auto begin = Clock::now();
  const fs::path work = store.begin(1);
  const FileSums sums = write_files(work, {{"state.safetensors", file}}, threads);
  store.commit(1, Json::object(), sums);
  return {{"bytes", sums.begin()->second.bytes}, {"seconds", seconds_since(begin)}};
}

Json load(const fs::path& dir) {
  const fs::path file = CheckpointStore(dir).path(1) / "state.safetensors";
  const modules::SafetensorsFile header(file);
  TensorMap memory;
  for (const auto& [name, info] : header.infos())
    memory[name] = torch::zeros(info.shape, info.dtype);
  const auto begin = Clock::now();
  for (const auto& [name, tensor] : modules::load_safetensors(file)) memory[name].copy_(tensor);
  return {{"bytes", fs::file_size(file)}, {"seconds", seconds_since(begin)}};
}

Json verify(const fs::path& dir) {
  const auto begin = Clock::now();
  verify_checkpoint(CheckpointStore(dir).path(1));
  return {{"seconds", seconds_since(begin)}};
}

int run(int argc, char** argv) {
  cxxopts::Options options("bench-checkpoint", "What checkpoints cost.\n");
  // clang-format off
  options.add_options()
    ("what", "train, save, load or verify", cxxopts::value<std::string>())
    ("dir", "where to write", cxxopts::value<std::string>())
    ("steps", "of the training", cxxopts::value<int64_t>()->default_value("500"))
    ("save-every", "0: never", cxxopts::value<int64_t>()->default_value("50"))
    ("width", "of the model", cxxopts::value<int64_t>()->default_value("512"))
    ("layers", "of the model", cxxopts::value<int64_t>()->default_value("4"))
    ("tokens", "of a sample", cxxopts::value<int64_t>()->default_value("512"))
    ("mib", "size of the checkpoint", cxxopts::value<int64_t>()->default_value("1024"))
    ("threads", "that write", cxxopts::value<int64_t>()->default_value("2"));
  // clang-format on
  options.parse_positional({"what", "dir"});
  const auto args = options.parse(argc, argv);
  require(args.count("what") && args.count("dir"), options.help());
  const auto number = [&](const char* name) { return args[name].as<int64_t>(); };
  const auto what = args["what"].as<std::string>();
  const fs::path dir = args["dir"].as<std::string>();
  Json result;
  if (what == "train")
    result = train(dir, number("steps"), number("save-every"),
                   {number("width"), number("layers"), number("tokens")});
  else if (what == "save")
    result = save(dir, number("mib"), number("threads"));
  else if (what == "load")
    result = load(dir);
  else if (what == "verify")
    result = verify(dir);
  else
    fail("expected train, save, load or verify, got ", what);
  return std::cout << result.dump() << '\n', 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-checkpoint", argc, argv, run);
}
