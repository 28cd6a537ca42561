// Embedding the suite: an exported transformer runs inside this program, then a task of our own
// trains two steps in the suite's loop.   usage: consumer WORKDIR
//
// B batch, C channels, T latent frames, H W latent height and width.

#include <cstdio>
#include <exception>
#include <filesystem>

#include "modules/core/random.h"
#include "modules/dit/transformer.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "trainer/config/config.h"
#include "trainer/core/recipe.h"
#include "trainer/loop/trainer.h"

namespace fs = std::filesystem;
using namespace cosmos;
using modules::Philox;
using modules::Purpose;

namespace {

const Json kTransformer = {
    {"_class_name", "CosmosTransformer3DModel"},
    {"in_channels", 4},
    {"out_channels", 4},
    {"num_attention_heads", 2},
    {"attention_head_dim", 16},
    {"num_layers", 2},
    {"adaln_lora_dim", 8},
    {"text_embed_dim", 16},
    {"max_size", {4, 16, 16}},
    {"extra_pos_embed_type", nullptr},
    {"concat_padding_mask", false},
};

TensorMap arguments(const Tensor& latents, const Tensor& timestep) {
  return {{"hidden_states", latents},
          {"timestep", timestep},
          {"encoder_hidden_states", torch::zeros({latents.size(0), 3, 16})}};
}

/// Smooth random fields instead of video.
class Waves : public trainer::Dataset {
 public:
  int64_t size() const override { return 8; }
  trainer::Sample get(int64_t item, uint64_t seed, int64_t sample_index) override {
    Philox random(seed, Purpose::kWindow, static_cast<uint64_t>(sample_index));
    const Tensor phase = random.uniform({4, 1, 1, 1}) * 6.28;
    const Tensor t = torch::arange(2).view({1, 2, 1, 1}), h = torch::arange(8).view({1, 1, 8, 1});
    trainer::Sample sample;
    sample.index = sample_index;
    sample.tensors["latents"] = torch::sin(phase + 0.5 * t + 0.3 * h).expand({4, 2, 8, 8}).clone();
    return sample;
  }
};

/// Denoising at one fixed level: enough to show where a task plugs in.
class DenoiseWaves : public trainer::Recipe {
 public:
  std::shared_ptr<modules::Model> model() override {
    if (!model_) model_ = modules::make_model(kTransformer, "consumer");
    return model_;
  }
  std::shared_ptr<trainer::Dataset> train_data() override { return std::make_shared<Waves>(); }
  std::shared_ptr<trainer::Dataset> validation_data() override { return nullptr; }

  trainer::Loss loss(const trainer::Batch& batch, const trainer::StepContext& context) override {
    const Tensor clean = batch.tensors.at("latents");  // [B, C, T, H, W]
    Tensors noise;
    for (int64_t index : batch.indices) {
      Philox random(context.seed, Purpose::kNoise, static_cast<uint64_t>(index));
      noise.push_back(random.normal(clean.sizes().slice(1)));
    }
    const Tensor eps = torch::stack(noise), sigma = torch::full({clean.size(0)}, 0.5);
    const Tensor velocity =
        model()->run("forward", arguments(0.5 * clean + 0.5 * eps, sigma)).at("sample");
    trainer::Loss loss;
    loss.value = torch::mse_loss(velocity, eps - clean);
    return loss;
  }

 private:
  std::shared_ptr<modules::Model> model_;
};

void run_exported(const fs::path& dir) {
  auto model = modules::make_model(kTransformer, "consumer");
  modules::save_model(dir, *model);
  auto loaded = modules::load_model(dir);
  torch::NoGradGuard no_grad;
  const auto inputs = arguments(torch::randn({1, 4, 2, 8, 8}), torch::tensor({0.5}));
  const Tensor ours = model->run("forward", inputs).at("sample");
  const Tensor theirs = loaded->run("forward", inputs).at("sample");
  require(torch::equal(ours, theirs), "the exported transformer gives other outputs");
  std::printf("exported transformer: %s, output equal\n", loaded->class_name().c_str());
}

void train_two_steps(const fs::path& dir) {
  trainer::register_recipe(
      "waves", [](const Json&, const std::string&) { return std::make_shared<DenoiseWaves>(); });
  auto config = trainer::parse_config({{"recipe", {{"type", "waves"}}},
                                       {"trainer", {{"steps", 2}, {"micro_batch_size", 2}}},
                                       {"run", {{"dir", dir.string()}}}},
                                      "consumer");
  trainer::Trainer trainer(config, trainer::make_recipe(config.recipe, "consumer: recipe"));
  const auto result = trainer.run();
  require(result.finished && result.step == 2, "training did not finish");
  std::printf("own recipe: %ld steps, loss %.4f\n", static_cast<long>(result.step), result.loss);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const fs::path work = argc > 1 ? argv[1] : "consumer-work";
    modules::register_builtin_models();
    run_exported(work / "transformer");
    train_two_steps(work / "run");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "consumer: %s\n", error.what());
    return 1;
  }
}
