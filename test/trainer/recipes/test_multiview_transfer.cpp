// Control branches of several cameras: each view reads its own control, base and cameras stay.

#include <catch2/catch.hpp>

#include "modules/dit/multiview_transformer.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_recipe.h"
#include "test/support/tiny_transfer.h"
#include "trainer/recipes/latent_dataset.h"
#include "trainer/recipes/transfer.h"

namespace cosmos::trainer {
namespace {

using Catch::Matchers::Contains;

// Two views of three latent frames that are half of what their control shows.
class ControlledViews : public Dataset {
 public:
  int64_t size() const override { return 4; }
  Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(9, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    const Tensor control = random.normal({4, 6, 4, 4});
    return {.index = sample_index,
            .tensors = {{"latents", control * 0.5},
                        {"control_latents", control},
                        {"view_indices", torch::tensor({1, 4})},
                        {"text_embeds", random.normal({4, 8})}},
            .text = {}};
  }
};

Json recipe_json() {
  Json config = test::tiny_recipe_json<ControlledViews>("controlled-views");
  config["views"] = {{"state_t", 3}};
  config["control_net"] = {{"n_controlnet_blocks", 2}, {"control_channels", 6}, {"hint_layers", 1}};
  config["text_dropout"] = 0.0;
  config["condition_frames"] = {1.0};
  return config;
}

// Two views of grey videos and two controls of each: brightness tells them apart.
class GreyVideos : public Dataset {
 public:
  int64_t size() const override { return 1; }
  Sample get(int64_t, uint64_t, int64_t sample_index) override {
    const auto videos = [](std::vector<int64_t> levels) {
      Tensors all;
      for (const int64_t level : levels)
        all.push_back(torch::full({3, 5, 16, 16}, level, torch::kUInt8));
      return torch::cat(all);
    };
    return {.index = sample_index,
            .tensors = {{"video", videos({10, 60})},
                        {"control", videos({90, 120, 160, 220})},
                        {"view_indices", torch::tensor({0, 3})}},
            .text = {}};
  }
};

}  // namespace

TEST_CASE("a branch of several cameras trains and its base stays",
          "[recipe][transfer][multiview]") {
  torch::manual_seed(1);
  TransferRecipe recipe(recipe_json(), "test");
  const auto net = recipe.model();
  const auto base = recipe.transformer();
  CHECK(net->class_name() == "CosmosMultiViewControlNetModel");
  CHECK(base->class_name() == "CosmosMultiViewTransformer3DModel");
  CHECK(base->config().num_control_residuals() == 2);
  CHECK(net->named_parameters()["view_embeddings.weight"].equal(
      base->named_parameters()["view_embeddings.weight"]));
  std::vector<Tensor> before;
  for (const auto& weight : base->parameters()) before.push_back(weight.clone());

  Batch batch = test::whole_batch(*recipe.train_data());
  const double alone = recipe.start_metrics(batch, {.seed = 4}).at("base_loss");
  CHECK(recipe.loss(batch, {.seed = 4}).value.item<double>() == Approx(alone).epsilon(1e-6));
  const double fresh = test::validation_loss(recipe, batch);
  test::train_on(recipe, *net, batch, 120);
  const double trained = test::validation_loss(recipe, batch);
  std::size_t i = 0;
  for (const auto& weight : base->parameters()) {
    CHECK(weight.equal(before[i++]));
    CHECK_FALSE(weight.grad().defined());
  }
  // Every view is told by its own control: those of the cameras changed about tell it wrongly.
  Tensor& control = batch.tensors["control_latents"];
  control = torch::cat({control.narrow(2, 3, 3), control.narrow(2, 0, 3)}, 2);
  const double changed_about = test::validation_loss(recipe, batch);
  INFO("fresh " << fresh << ", trained " << trained << ", cameras' controls changed about "
                << changed_about);
  CHECK(trained < 0.7 * fresh);
  CHECK(changed_about > 1.2 * trained);
  batch.tensors.erase("view_indices");
  CHECK_THROWS_WITH(test::validation_loss(recipe, batch), Contains("view_indices"));
}

TEST_CASE("base and branch of several cameras go on from their folders",
          "[recipe][transfer][multiview]") {
  modules::register_builtin_models();
  const test::TempFolder dir;
  torch::manual_seed(1);
  TransferRecipe fresh(recipe_json(), "test");
  {
    const torch::NoGradGuard no_grad;
    for (auto& weight : fresh.model()->parameters()) weight.add_(0.03);
  }
  modules::save_model(dir / "net", *fresh.model());
  modules::save_model(dir / "base", *fresh.transformer());
  Json config = recipe_json();
  config["model"] = {{"path", (dir / "base").string()}};
  config["views"] = Json::object();  // what the folder says
  config["control_net"] = {{"path", (dir / "net").string()}};
  TransferRecipe recipe(config, "test");
  CHECK(recipe.model_for_plan()->class_name() == "CosmosMultiViewControlNetModel");
  const Batch batch = test::whole_batch(*fresh.train_data());
  CHECK(test::validation_loss(recipe, batch) ==
        Approx(test::validation_loss(fresh, batch)).epsilon(1e-6));
  const Json resolved = recipe.resolved_config();
  CHECK(resolved["type"] == "transfer");
  CHECK(resolved.contains("views"));

  // One view and several do not go together.
  const auto refused = [&](Json changed, const std::string& part) {
    CHECK_THROWS_WITH(TransferRecipe(changed, "test").model(), Contains(part));
  };
  Json one = config;
  one.erase("views");
  refused(one, "test.model.path: " + (dir / "base").string() + " is a model of several cameras");
  torch::manual_seed(1);
  modules::save_model(dir / "one", modules::CosmosTransformer3DModel(modules::DitConfig::from_json(
                                       recipe_json()["model"], "test")));
  Json plain = config;
  plain["model"] = {{"path", (dir / "one").string()}};
  plain["views"] = {{"state_t", 3}};
  refused(plain, "expected a CosmosMultiViewTransformer3DModel");
  Json other = config;
  modules::save_model(dir / "other", *test::tiny_net(1));
  other["control_net"] = {{"path", (dir / "other").string()}};
  refused(other,
          "expected a CosmosMultiViewControlNetModel (the recipe is for several cameras), "
          "got a CosmosControlNetModel");
}

TEST_CASE("controls of several cameras stand along time as the views do",
          "[recipe][transfer][multiview]") {
  modules::register_builtin_models();
  torch::manual_seed(1);
  const auto tokenizer = std::dynamic_pointer_cast<modules::VideoTokenizer>(
      modules::make_model(test::tiny_vae_config(), "vae"));
  const auto data = latent_dataset(std::make_shared<GreyVideos>(), tokenizer, Json::object(),
                                   {.cache = "none"}, "test");
  const Tensor latents = data->get(0, 0, 0).tensors.at("control_latents");
  const Tensor views = data->get(0, 0, 0).tensors.at("latents");
  REQUIRE(views.sizes() == at::IntArrayRef({4, 4, 2, 2}));
  REQUIRE(latents.sizes() == at::IntArrayRef({8, 4, 2, 2}));
  const torch::NoGradGuard no_grad;
  const auto encoded = [&](int64_t level) {
    const Tensor video = torch::full({1, 3, 5, 16, 16}, static_cast<double>(level)) / 127.5 - 1;
    return tokenizer->normalize_latents(tokenizer->encode(video.to(torch::kFloat32)).mode())[0];
  };
  const Tensor expected = torch::cat(
      {torch::cat({encoded(90), encoded(120)}, 1), torch::cat({encoded(160), encoded(220)}, 1)});
  CHECK(latents.allclose(expected, 1e-5, 1e-6));
}

TEST_CASE("transfer recipes of several cameras that cannot work are refused",
          "[recipe][transfer][multiview]") {
  const auto refused = [](const char* change, const std::string& part) {
    Json config = recipe_json();
    config.merge_patch(Json::parse(change));
    CHECK_THROWS_WITH(TransferRecipe(config, "test"), Contains(part));
  };
  refused(R"({"views": {"state": 4}})", "did you mean state_t");
  refused(R"({"control_net": {"hint_layer": 1}})", "did you mean hint_layers");
  refused(R"({"data": {"type": "multiview", "path": "x", "cameras": ["a=0"], "num_frames": 9,
                       "height": 16, "width": 16}})",
          "test.data.control: expected edge, blur");
  refused(R"({"data": {"type": "video", "path": "x", "control": "edge", "num_frames": 9,
                       "height": 16, "width": 16}})",
          "expected multiview");
}

}  // namespace cosmos::trainer
