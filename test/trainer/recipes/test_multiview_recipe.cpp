// Post-training on several cameras: given frames, text and tokens are those of every view; a base
// without views starts as it was.

#include <catch2/catch.hpp>

#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_recipe.h"
#include "trainer/recipes/multiview.h"

namespace cosmos::trainer {
namespace {

using Catch::Matchers::Contains;

// Two views of three latent frames: what camera k shows is as bright as its number.
class BrightLatents : public Dataset {
 public:
  int64_t size() const override { return 4; }
  Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(9, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    Tensor latents = 0.1 * random.normal({4, 6, 4, 4});
    latents.narrow(1, 0, 3).add_(-1);
    latents.narrow(1, 3, 3).add_(1);
    return {.index = sample_index,
            .tensors = {{"latents", latents},
                        {"view_indices", torch::tensor({1, 4})},
                        {"text_embeds", random.normal({4, 8})}},
            .text = {}};
  }
};

Json recipe_json() {
  Json config = test::tiny_recipe_json<BrightLatents>("bright-latents");
  config["views"] = {{"state_t", 3}};
  config["text_dropout"] = 0.0;
  config["condition_frames"] = {1.0};
  return config;
}

// What the recipe draws, for the tests.
class Seen : public MultiViewRecipe {
 public:
  using MultiViewRecipe::Draws;
  using MultiViewRecipe::MultiViewRecipe;
  Draws drawn(const Batch& batch) { return draw(batch, 3, true, 0); }
};

}  // namespace

TEST_CASE("a model learns which camera shows what", "[recipe][multiview]") {
  torch::manual_seed(1);
  MultiViewRecipe recipe(recipe_json(), "test");
  const auto model = recipe.model();
  CHECK(model->class_name() == "CosmosMultiViewTransformer3DModel");
  Batch batch = test::whole_batch(*recipe.train_data());
  test::train_on(recipe, *model, batch, 80);
  const double told = test::validation_loss(recipe, batch);
  batch.tensors["view_indices"] = batch.tensors["view_indices"].flip(1).contiguous();
  const double wrongly_told = test::validation_loss(recipe, batch);
  INFO("loss " << told << " with the views' cameras, " << wrongly_told << " with them swapped");
  CHECK(told < 0.8 * wrongly_told);
  batch.tensors.erase("view_indices");
  CHECK_THROWS_WITH(test::validation_loss(recipe, batch), Contains("view_indices"));
}

TEST_CASE("every view is given its first frames", "[recipe][multiview]") {
  torch::manual_seed(1);
  Json config = recipe_json();
  config["condition_frames"] = {0.0, 1.0};
  Seen recipe(config, "test");
  recipe.model();
  Batch batch = test::whole_batch(*recipe.train_data());
  const auto draws = recipe.drawn(batch);
  CHECK(draws.indicator.flatten(1)[0].equal(torch::tensor({1., 0., 0., 1., 0., 0.})));
  CHECK(draws.views.sizes() == at::IntArrayRef({4, 2}));
  batch.tensors.erase("text_embeds");
  CHECK(recipe.drawn(batch).text.sizes() == at::IntArrayRef({4, 2, 8}));  // a token a view
}

TEST_CASE("a base without views gets camera embeddings and keeps its weights",
          "[recipe][multiview]") {
  modules::register_builtin_models();
  const test::TempFolder dir;
  Json config = recipe_json();
  torch::manual_seed(1);
  const modules::CosmosTransformer3DModel base(
      modules::DitConfig::from_json(config["model"], "test"));
  save_model(dir / "base", base);
  config["model"] = {{"path", (dir / "base").string()}};
  MultiViewRecipe recipe(config, "test");
  CHECK(recipe.model_without_weights() == nullptr);
  const auto views = recipe.model();
  const auto weights = views->named_parameters();
  CHECK(weights.size() == base.named_parameters().size() + 1);
  for (const auto& weight : base.named_parameters())
    if (weight.key() != "patch_embed.proj.weight")
      CHECK(weights[weight.key()].equal(weight.value()));
  const Tensor stem = weights["patch_embed.proj.weight"];
  CHECK(stem.size(1) == (6 + 7) * 4);
  CHECK(stem.narrow(1, 24, 28).abs().max().item<double>() == 0);

  // Its export goes on as it is, with LoRA too, and says itself what a view is.
  save_model(dir / "views", *views);
  config["model"] = {{"path", (dir / "views").string()}};
  config.erase("views");
  MultiViewRecipe again(config, "test");
  const auto reread = again.model()->named_parameters();
  for (const auto& weight : weights) CHECK(reread[weight.key()].equal(weight.value()));
  config["lora"] = {{"rank", 2}};
  CHECK(MultiViewRecipe(config, "test").model_without_weights() != nullptr);
  config["views"] = {{"state_t", 4}};
  CHECK_THROWS_WITH(MultiViewRecipe(config, "test").model(), Contains("test.views.state_t"));
  config["views"] = {{"state_t", 3}};
  config["model"] = {{"path", (dir / "base").string()}};
  CHECK_THROWS_WITH(MultiViewRecipe(config, "test").model(), Contains("test.lora"));
}

TEST_CASE("multi-view recipes that cannot work are refused", "[recipe][multiview]") {
  const auto refused = [](const char* change, const std::string& part) {
    Json config = recipe_json();
    config.merge_patch(Json::parse(change));
    CHECK_THROWS_WITH(MultiViewRecipe(config, "test"), Contains(part));
  };
  refused(R"({"views": {"state": 4}})", "did you mean state_t");
  refused(R"({"data": {"type": null, "path": "x", "num_frames": 5, "height": 16, "width": 16}})",
          "expected multiview");
}

}  // namespace cosmos::trainer
