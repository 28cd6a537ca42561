// The tokenizer recipe on a handful of synthetic clips.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <torch/optim/adamw.h>

#include "modules/registry.h"
#include "test/support/temp_folder.h"
#include "trainer/data/registry.h"
#include "trainer/recipes/tokenizer.h"

using namespace cosmos;
using namespace cosmos::trainer;

namespace {

/// Clips of a brightness ramp that moves: item i starts i pixels further.
class Ramps : public Dataset {
 public:
  int64_t size() const override { return 6; }
  Sample get(int64_t item, uint64_t seed, int64_t sample_index) override {
    const Tensor t = torch::arange(5).view({1, 5, 1, 1}), y = torch::arange(16).view({1, 1, 16, 1});
    const Tensor x = torch::arange(16).view({1, 1, 1, 16}), c = torch::arange(3).view({3, 1, 1, 1});
    const Tensor video = (9 * x + 5 * y + 7 * t + 20 * c + 11 * item).remainder(256);
    return {.index = sample_index, .tensors = {{"video", video.to(torch::kUInt8)}}, .text = {}};
  }
};

Json config(const std::string& init) {
  modules::register_builtin_models();
  register_dataset("ramps",
                   [](const Json&, const std::string&) { return std::make_shared<Ramps>(); });
  return {{"model",
           {{"_class_name", "AutoencoderKLCosmos"},
            {"latent_channels", 4},
            {"encoder_block_out_channels", {16, 16, 16, 16}},
            {"decode_block_out_channels", {16, 16, 16, 16}},
            {"num_layers", 0},
            {"attention_resolutions", Json::array()},
            {"patch_size", 2},
            {"spatial_compression_ratio", 4},
            {"temporal_compression_ratio", 4}}},
          {"init", init},
          {"kl_weight", 1e-4},
          {"statistics_clips", 6},
          {"data", {{"type", "ramps"}}},
          {"validation_data", {{"type", "ramps"}}}};
}

Batch batch(Dataset& data, int64_t item) {
  return collate({data.get(item, 0, item)});
}

}  // namespace

TEST_CASE("a tokenizer learns clips, and its config then carries their statistics", "[tokenizer]") {
  torch::manual_seed(0);
  TokenizerRecipe recipe(config("identity"), "recipe");
  auto model = recipe.tokenizer();
  torch::optim::AdamW adam(model->parameters(), torch::optim::AdamWOptions(3e-3));
  double first = 0, last = 0;
  for (int64_t step = 0; step < 80; ++step) {
    adam.zero_grad();
    const Loss loss = recipe.loss(batch(*recipe.train_data(), step % 6), {.step = step});
    loss.value.backward();
    adam.step();
    (step == 0 ? first : last) = loss.value.item<double>();
  }
  CHECK(last < first / 3);

  torch::NoGradGuard no_grad;
  model->eval();
  const Loss loss = recipe.loss(batch(*recipe.validation_data(), 2), {.training = false});
  Json row;
  for (const auto& [name, value] : loss.metrics) row["val_" + name] = value.item<double>();
  recipe.derive_metrics(row, "val_");
  CHECK(row["val_psnr"].get<double>() ==
        Approx(-10 * std::log10(loss.metrics.at("mse").item<double>())));
  CHECK(row["val_pca_psnr"].get<double>() > 10);

  recipe.before_save();
  Tensor normalised;
  for (int64_t item = 0; item < 6; ++item) {
    const Tensor video = recipe.train_data()->get(item, 0, item).tensors["video"].unsqueeze(0);
    const Tensor z = model->normalize_latents(model->encode(video / 127.5 - 1).mode());
    normalised = item == 0 ? z : torch::cat({normalised, z});
  }
  const Tensor by_channel = normalised.transpose(0, 1).flatten(1);
  CHECK(by_channel.mean(1).abs().max().item<double>() < 1e-4);
  CHECK(torch::allclose(by_channel.std(1, false), torch::ones({4}), 1e-3, 1e-3));
  CHECK(model->config_json()["latents_std"].size() == 4);

  test::TempFolder folder;
  const auto files = recipe.write_samples(folder.path(), 40);
  CHECK(files.size() == 2);
  for (const auto& file : files) CHECK(std::filesystem::file_size(file) > 100);
}

TEST_CASE("the tokenizer recipe refuses settings that cannot work", "[tokenizer]") {
  Json bad = config("default");
  bad["kl_wait"] = 1;
  CHECK_THROWS_WITH(TokenizerRecipe(bad, "c.json: recipe"),
                    Catch::Contains("did you mean kl_weight?"));
  bad = config("default");
  bad["mse_weight"] = 0;
  CHECK_THROWS_WITH(TokenizerRecipe(bad, "recipe"), Catch::Contains("nothing asks for the clip"));
  bad = config("default");
  bad["model"]["latent_chanels"] = 4;
  CHECK_THROWS_WITH(TokenizerRecipe(bad, "recipe"),
                    "recipe.model.latent_chanels is not a setting (did you mean latent_channels?)");
  bad = config("default");
  bad["model"]["patch_size"] = 3;
  CHECK_THROWS_WITH(TokenizerRecipe(bad, "recipe"),
                    "recipe.model: patch_size: expected a power of two, got 3");
}
