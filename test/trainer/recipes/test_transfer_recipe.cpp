// Control-branch training: only the branch learns, the control matters, data come with it.

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <torch/optim/adamw.h>

#include "modules/hub/model_weights.h"
#include "modules/registry.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/registry.h"
#include "trainer/data/video_reader.h"
#include "trainer/recipes/transfer.h"

namespace cosmos::trainer {
namespace {

// Latents that are their control's latents, half as large: what a branch can learn.
class ControlledLatents : public Dataset {
 public:
  int64_t size() const override { return 4; }
  Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(9, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    const Tensor control = random.normal({4, 2, 4, 4});
    return {.index = sample_index,
            .tensors = {{"latents", control * 0.5}, {"control_latents", control}},
            .text = {}};
  }
};

Json recipe_json() {
  register_dataset("controlled-latents", [](const Json&, const std::string&) {
    return std::make_shared<ControlledLatents>();
  });
  return {{"model",
           {{"in_channels", 5},
            {"out_channels", 4},
            {"num_attention_heads", 2},
            {"attention_head_dim", 12},
            {"num_layers", 3},
            {"mlp_ratio", 2.0},
            {"text_embed_dim", 8},
            {"adaln_lora_dim", 4},
            {"max_size", {8, 16, 16}},
            {"extra_pos_embed_type", nullptr}}},
          {"control_net", {{"n_controlnet_blocks", 2}, {"control_channels", 6}}},
          {"data", {{"type", "controlled-latents"}}},
          {"validation_data", {{"type", "controlled-latents"}}},
          {"latent_cache", "none"},
          {"condition_frames", {1.0}}};
}

Batch batch_of(Dataset& data, const std::vector<int64_t>& indices) {
  std::vector<Sample> samples;
  for (const int64_t index : indices) samples.push_back(data.get(index % 4, 0, index));
  return collate(samples);
}

bool no_media() {
  if (!media_available()) std::cout << "SKIPPED: FFmpeg is not there\n";
  return !media_available();
}

}  // namespace

TEST_CASE("the branch trains and the base stays", "[recipe][transfer]") {
  torch::manual_seed(1);
  TransferRecipe recipe(recipe_json(), "test");
  const auto net = recipe.model();
  CHECK(net->class_name() == "CosmosControlNetModel");
  CHECK(recipe.transformer()->config().num_control_residuals() == 2);
  std::vector<Tensor> before;
  for (const auto& weight : recipe.transformer()->parameters()) before.push_back(weight.clone());

  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(5e-3));
  const Batch batch = batch_of(*recipe.train_data(), {0, 1, 2, 3});
  const StepContext context{.seed = 4};
  const double base = recipe.start_metrics(batch, context).at("base_loss");
  double first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    const Loss loss = recipe.loss(batch, context);
    optimizer.zero_grad();
    loss.value.backward();
    optimizer.step();
    last = loss.value.item<double>();
    if (step == 0) first = last;
  }
  CHECK(first == Approx(base).epsilon(1e-6));  // a fresh branch changes nothing
  CHECK(last < 0.7 * first);
  std::size_t i = 0;
  for (const auto& weight : recipe.transformer()->parameters()) {
    CHECK(weight.equal(before[i++]));
    CHECK_FALSE(weight.grad().defined());
  }
}

TEST_CASE("control dropout takes the control away", "[recipe][transfer]") {
  Json config = recipe_json();
  const auto trained = [](const Json& config) {
    torch::manual_seed(1);
    auto recipe = std::make_unique<TransferRecipe>(config, "test");
    torch::NoGradGuard no_grad;
    // Not by one number: a layer norm takes away what all features have in common.
    for (auto& weight : recipe->model()->parameters()) weight.add_(0.1 * torch::randn_like(weight));
    return recipe;
  };
  auto recipe = trained(config);
  config["control_dropout"] = 1;
  auto dropped = trained(config);
  Batch batch = batch_of(*recipe->train_data(), {0, 1});
  const double with = recipe->loss(batch, {.seed = 4}).value.item<double>();
  const double without = dropped->loss(batch, {.seed = 4}).value.item<double>();
  CHECK(with != Approx(without));
  batch.tensors["control_latents"].zero_();
  CHECK(recipe->loss(batch, {.seed = 4}).value.item<double>() == Approx(without));
  // Validation drops nothing.
  batch = batch_of(*recipe->train_data(), {0, 1});
  const StepContext validation{.seed = 4, .training = false};
  CHECK(recipe->loss(batch, validation).value.item<double>() ==
        Approx(dropped->loss(batch, validation).value.item<double>()));
}

TEST_CASE("two controls with weights of frames go through one branch", "[recipe][transfer]") {
  Json config = recipe_json();
  config["control_weights"] = "per_frame";
  torch::manual_seed(1);
  TransferRecipe weighted(config, "test");
  torch::manual_seed(1);
  TransferRecipe plain(recipe_json(), "test");
  for (auto* recipe : {&weighted, &plain}) {
    torch::manual_seed(2);
    torch::NoGradGuard no_grad;
    for (auto& weight : recipe->model()->parameters()) weight.add_(0.1 * torch::randn_like(weight));
  }
  const auto loss = [](TransferRecipe& recipe, Batch batch, const Tensor& more, uint64_t seed) {
    Tensor& control = batch.tensors["control_latents"];
    control = torch::cat({control, more}, 1);
    return recipe.loss(batch, {.seed = seed}).value.item<double>();
  };
  const Batch batch = batch_of(*plain.train_data(), {0, 1});
  const Tensor control = batch.tensors.at("control_latents"), other = control.flip(2);
  // As numbers both count 1: their order is nothing. Weights are drawn by their place and seed.
  const double both = loss(plain, batch, other, 4);
  Batch swapped = batch;
  swapped.tensors["control_latents"] = other;
  CHECK(loss(plain, swapped, control, 4) == Approx(both).epsilon(1e-5));
  const double drawn = loss(weighted, batch, other, 4);
  CHECK(drawn != Approx(both).epsilon(1e-6));
  CHECK(loss(weighted, batch, other, 4) == drawn);
  CHECK(loss(weighted, swapped, control, 4) != Approx(drawn).epsilon(1e-6));
  const double alone = plain.loss(batch, {.seed = 4}).value.item<double>();
  CHECK(loss(plain, batch, torch::zeros_like(control).slice(1, 0, 0), 4) == Approx(alone));
}

TEST_CASE("a trained branch comes back from its folder", "[recipe][transfer]") {
  modules::register_builtin_models();
  const test::TempFolder dir;
  torch::manual_seed(1);
  TransferRecipe fresh(recipe_json(), "test");
  {
    torch::NoGradGuard no_grad;
    for (auto& weight : fresh.model()->parameters()) weight.add_(0.03);
  }
  modules::save_model(dir / "net", *fresh.model());
  modules::save_model(dir / "base", *fresh.transformer());
  Json config = recipe_json();
  config["model"] = {{"path", (dir / "base").string()}};
  config["control_net"] = {{"path", (dir / "net").string()}};
  TransferRecipe recipe(config, "test");
  const Batch batch = batch_of(*fresh.train_data(), {0});
  CHECK(recipe.loss(batch, {}).value.item<double>() ==
        Approx(fresh.loss(batch, {}).value.item<double>()).epsilon(1e-6));
}

TEST_CASE("mistakes in a transfer recipe are named", "[recipe][transfer]") {
  const auto with = [](const char* key, const Json& value) {
    Json config = recipe_json();
    config[key] = value;
    TransferRecipe recipe(config, "a.json: recipe");
  };
  CHECK_THROWS_WITH(with("control_dropout", 2),
                    "a.json: recipe.control_dropout: expected 0 to 1, got 2");
  CHECK_THROWS_WITH(with("control_weights", "frames"),
                    "a.json: recipe.control_weights: expected one or per_frame, got frames");
  CHECK_THROWS_WITH(with("control_net", {{"blocks", 2}}),
                    Catch::Contains("a.json: recipe.control_net"));
  CHECK_THROWS_WITH(with("lora", {{"rank", 2}}), Catch::Contains("leave lora out"));
  CHECK_THROWS_WITH(
      with("data", {{"path", "x.mp4"}, {"num_frames", 5}, {"height", 16}, {"width", 16}}),
      Catch::Contains("a.json: recipe.data.control: expected edge, blur"));
}

TEST_CASE("clips come with their control videos", "[dataset][transfer]") {
  if (no_media()) return;
  const test::TempFolder dir;
  // Columns 0-15 black, 16-31 white, brighter by frame; depth/ has frame t at level 8 t.
  const auto write = [&](const std::string& name, int64_t frames, bool depth) {
    const Tensor level = (torch::arange(frames) * 8).view({-1, 1, 1, 1});
    Tensor video = level.expand({frames, 32, 32, 3}).to(torch::kUInt8).contiguous();
    if (!depth) video.narrow(2, 16, 16).fill_(255);
    write_video(dir / name, video, {.fps = 10, .quality = 2});
  };
  write("videos/a.mp4", 12, false);
  write("depth/a.mp4", 14, true);
  std::filesystem::create_directories(dir / "captions");
  std::ofstream(dir / "captions/a.json") << R"({"model": {"short": "s", "long": "a long one"}})";
  const auto sample = [&](Json more) {
    Json config{{"path", dir.path().string()}, {"num_frames", 4}, {"height", 32}, {"width", 32}};
    config.update(more);
    return make_dataset(config, "data")->get(0, 3, 7);
  };
  const Sample edge = sample({{"control", "edge"}, {"control_strength", "low"}});
  CHECK(edge.text.at("caption") == "a long one");
  const Tensor edges = edge.tensors.at("control");
  CHECK(edges.sizes() == edge.tensors.at("video").sizes());
  CHECK(edges.slice(3, 13, 19).max().item<int64_t>() == 255);  // the border, and nothing else
  CHECK(edges.slice(3, 0, 12).max().item<int64_t>() == 0);

  const Sample two = sample({{"control", "edge,depth"}, {"control_strength", "low"}});
  CHECK(two.tensors.at("control").size(0) == 6);
  CHECK(two.tensors.at("control").slice(0, 0, 3).equal(edges));
  CHECK_THROWS_WITH(sample({{"control", "edge,,blur"}}), Catch::Contains("commas between"));

  const Sample depth = sample({{"control", "depth"}});
  const auto mean = [](const Tensor& x) { return x.to(torch::kFloat32).mean({0, 2, 3}); };
  const Tensor black = mean(depth.tensors.at("video").slice(3, 0, 12));
  CHECK(mean(depth.tensors.at("control").slice(3, 0, 12)).allclose(black, 0, 3));  // same frames

  CHECK_THROWS_WITH(sample({{"control", "seg"}}), Catch::Contains("has no seg video"));
  CHECK_THROWS_WITH(sample({{"control", "../videos"}}), Catch::Contains("data.control"));
  CHECK_THROWS_WITH(sample({{"control", "edge"}, {"control_strength", "lo"}}),
                    Catch::Contains("data.control_strength"));
}

}  // namespace cosmos::trainer
