// Post-training on a robot's actions: the model learns to follow them, from scratch and from a base
// that was never told any.

#include <catch2/catch.hpp>

#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_recipe.h"
#include "trainer/recipes/action.h"

namespace cosmos::trainer {
namespace {

using Catch::Matchers::Contains;

// The frames after the first are as bright as the four actions that lead to them say.
class MovedLatents : public Dataset {
 public:
  int64_t size() const override { return 8; }
  Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(9, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    const Tensor action = random.normal({2, 1, 2}).expand({2, 4, 2}).reshape({8, 2});
    Tensor latents = 0.1 * random.normal({4, 3, 4, 4});
    latents.narrow(1, 1, 2).add_(action.select(1, 0).view({2, 4}).mean(1).view({1, 2, 1, 1}));
    return {.index = sample_index,
            .tensors = {{"latents", latents}, {"action", action.contiguous()}},
            .text = {}};
  }
};

Json recipe_json() {
  Json config = test::tiny_recipe_json<MovedLatents>("moved-latents");
  config["action"] = {{"action_dim", 2}};
  config["condition_frames"] = {0.0, 1.0};
  return config;
}

}  // namespace

TEST_CASE("a model learns to follow actions", "[recipe][action]") {
  torch::manual_seed(1);
  ActionRecipe recipe(recipe_json(), "test");
  const auto model = recipe.model();
  CHECK(model->class_name() == "CosmosActionTransformer3DModel");
  Batch batch = test::whole_batch(*recipe.train_data());
  test::train_on(recipe, *model, batch, 120);
  const double told = test::validation_loss(recipe, batch);
  batch.tensors["action"] = batch.tensors["action"].neg();
  const double wrongly_told = test::validation_loss(recipe, batch);
  INFO("loss " << told << " with the clips' actions, " << wrongly_told << " with others");
  CHECK(told < 0.5 * wrongly_told);
  batch.tensors.erase("action");
  CHECK_THROWS_WITH(test::validation_loss(recipe, batch), Contains("no actions"));
}

TEST_CASE("a base without actions gets embedders and keeps its weights", "[recipe][action]") {
  modules::register_builtin_models();
  const test::TempFolder dir;
  Json config = recipe_json();
  torch::manual_seed(1);
  const modules::CosmosTransformer3DModel base(
      modules::DitConfig::from_json(config["model"], "test"));
  save_model(dir / "base", base);
  config["model"] = {{"path", (dir / "base").string()}};
  ActionRecipe recipe(config, "test");
  const auto robot = recipe.model();
  CHECK(robot->class_name() == "CosmosActionTransformer3DModel");
  const auto weights = robot->named_parameters();
  for (const auto& weight : base.named_parameters())
    CHECK(weights[weight.key()].equal(weight.value()));
  CHECK(weights.size() == base.named_parameters().size() + 8);

  // Its export goes on as it is, and says itself what an action is.
  save_model(dir / "robot", *robot);
  config["model"] = {{"path", (dir / "robot").string()}};
  config.erase("action");
  ActionRecipe again(config, "test");
  const auto reread = again.model()->named_parameters();
  for (const auto& weight : weights) CHECK(reread[weight.key()].equal(weight.value()));
  config["action"] = {{"action_dim", 7}};
  CHECK_THROWS_WITH(ActionRecipe(config, "test").model(), Contains("test.action.action_dim"));
}

TEST_CASE("action recipes that cannot work are refused", "[recipe][action]") {
  const auto refused = [](const char* change, const std::string& part) {
    Json config = recipe_json();
    config.merge_patch(Json::parse(change));
    CHECK_THROWS_WITH(ActionRecipe(config, "test"), Contains(part));
  };
  refused(R"({"lora": {"rank": 4}})", "test.lora");
  refused(R"({"action": {"actoin_dim": 4}})", "did you mean action_dim");
  refused(R"({"data": {"type": null, "path": "x", "num_frames": 5, "height": 16, "width": 16}})",
          "data.actions");
}

}  // namespace cosmos::trainer
