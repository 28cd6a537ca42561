#pragma once

// The smallest task that exercises the whole trainer: regression by a stack of linear blocks on
// random vectors. For tests only.

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "modules/core/linear.h"
#include "modules/core/random.h"
#include "test/support/temp_folder.h"
#include "trainer/core/recipe.h"
#include "trainer/loop/trainer.h"

namespace cosmos::test {

struct ToyConfig {
  int64_t width = 8;
  int64_t layers = 3;
  bool freeze_first = false;
  int64_t nan_at = -1;    // step whose loss is NaN
  int64_t sleep_ms = 0;   // per micro-batch, so that a test can interrupt
  bool pictures = false;  // write_samples writes one
  template <typename Visitor>
  void fields(Visitor& v) {
    v("width", width);
    v("layers", layers);
    v("freeze_first", freeze_first);
    v("nan_at", nan_at);
    v("sleep_ms", sleep_ms);
    v("pictures", pictures);
  }
};

// x: [B, width] -> [B, width]; each block is x + W2 tanh(W1 x).
class ToyModel : public modules::Model {
 public:
  struct BlockImpl : torch::nn::Module {
    explicit BlockImpl(int64_t width) : up(width, 2 * width), down(2 * width, width) {
      register_module("up", up);
      register_module("down", down);
    }
    Tensor forward(const Tensor& x) { return x + down->forward(torch::tanh(up->forward(x))); }
    modules::Linear up, down;
  };

  explicit ToyModel(const ToyConfig& config) : config_(config) {
    for (int64_t i = 0; i < config.layers; ++i)
      blocks_.push_back(
          register_module("block_" + std::to_string(i), std::make_shared<BlockImpl>(config.width)));
    if (config.freeze_first)
      for (Tensor& p : blocks_[0]->parameters()) p.requires_grad_(false);
  }

  Tensor forward(Tensor x) {
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      auto& block = blocks_[i];
      x = run_block("blocks." + std::to_string(i), *block, {x},
                    [block](const Tensors& in) -> Tensors { return {block->forward(in[0])}; })[0];
    }
    return x;
  }

  std::string class_name() const override { return "ToyModel"; }
  Json config_json() const override {
    return {{"_class_name", "ToyModel"}, {"width", config_.width}, {"layers", config_.layers}};
  }
  TensorMap run(const std::string&, const TensorMap& in) override {
    return {{"sample", forward(in.at("x"))}};
  }

 private:
  ToyConfig config_;
  std::vector<std::shared_ptr<BlockImpl>> blocks_;
};

// x is drawn from the item, y = sin(2 x).
class ToyData : public trainer::Dataset {
 public:
  ToyData(int64_t width, int64_t size) : width_(width), size_(size) {}
  int64_t size() const override { return size_; }
  trainer::Sample get(int64_t item, uint64_t, int64_t) override {
    modules::Philox random(7, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    trainer::Sample sample;
    sample.tensors["x"] = random.normal({width_});
    sample.tensors["y"] = torch::sin(2 * sample.tensors["x"]);
    return sample;
  }

 private:
  int64_t width_, size_;
};

class ToyRecipe : public trainer::Recipe {
 public:
  explicit ToyRecipe(const ToyConfig& config) : config_(config) {}

  std::shared_ptr<modules::Model> model() override {
    if (!model_) model_ = std::make_shared<ToyModel>(config_);
    return model_;
  }
  std::shared_ptr<trainer::Dataset> train_data() override {
    return std::make_shared<ToyData>(config_.width, 24);
  }
  std::shared_ptr<trainer::Dataset> validation_data() override {
    return std::make_shared<ToyData>(config_.width, 5);
  }
  trainer::Loss loss(const trainer::Batch& batch, const trainer::StepContext& context) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(config_.sleep_ms));
    const Tensor first = model_->parameters()[0];
    const Tensor error = model_->forward(batch.tensors.at("x").to(first.scalar_type())) -
                         batch.tensors.at("y").to(first.scalar_type());
    Tensor value = error.square().mean().to(torch::kFloat32);
    if (context.step == config_.nan_at) value = value * std::nan("");
    trainer::Loss loss{
        .value = value, .metrics = {{"error", error.detach().abs().mean()}}, .by_label = {}};
    for (const int64_t index : batch.indices)
      loss.by_label.emplace_back(index % 2 ? "half/odd" : "half/even", value.item<double>());
    return loss;
  }
  std::map<std::string, double> start_metrics(const trainer::Batch&,
                                              const trainer::StepContext&) override {
    return {{"random_init_loss", 9.5}};
  }
  std::vector<std::filesystem::path> write_samples(const std::filesystem::path& dir,
                                                   int64_t) override {
    if (!config_.pictures) return {};
    std::filesystem::create_directories(dir);
    std::ofstream(dir / "frame.png") << "not really a picture";
    return {dir / "frame.png"};
  }
  Json resolved_config() const override { return modules::write_fields(config_); }
  double flops_per_sample() const override { return 12e3; }
  double tokens_per_sample() const override { return 1; }

 private:
  ToyConfig config_;
  std::shared_ptr<ToyModel> model_;
};

inline void register_toy_recipe() {
  trainer::register_recipe("toy", [](const Json& json, const std::string& where) {
    ToyConfig config;
    modules::read_fields(json, config, where, modules::UnknownKeys::kRefuse);
    return std::make_shared<ToyRecipe>(config);
  });
}

inline trainer::Config toy_config(const std::filesystem::path& dir, Json trainer = Json::object(),
                                  Json recipe = Json::object()) {
  trainer["threads"] = 1;
  recipe["type"] = "toy";
  return trainer::parse_config(
      {{"recipe", recipe}, {"trainer", trainer}, {"run", {{"dir", dir.string()}}}}, "toy.json");
}

inline trainer::RunResult run_toy(const trainer::Config& config,
                                  trainer::TrainerOptions options = {}) {
  register_toy_recipe();
  return trainer::Trainer(config, trainer::make_recipe(config.recipe, "toy.json: recipe"),
                          std::move(options))
      .run();
}

inline std::vector<Json> read_rows(const std::filesystem::path& run) {
  std::ifstream in(run / "metrics.jsonl");
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace cosmos::test
