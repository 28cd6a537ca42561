#include "trainer/recipes/action.h"

#include "modules/hub/json_file.h"

namespace cosmos::trainer {
namespace {

using modules::ActionConfig;
using modules::CosmosActionTransformer3DModel;
using modules::CosmosTransformer3DModel;

Json without_action(Json config) {
  config.erase("action");
  return config;
}

}  // namespace

ActionRecipe::ActionRecipe(const Json& config, const std::string& where)
    : DiffusionRecipe(without_action(config), where) {
  action_.action = config.value("action", Json::object());
  require(action_.action.is_object(), where, ".action: expected an object, got ",
          modules::describe(action_.action));
  modules::refuse_unknown(action_.action, {"action_dim", "num_actions", "per_latent_frame"},
                          where + ".action");
  require(!this->config().lora, where,
          ".lora: the action embedders are new and train whole, and the rest with them; leave lora "
          "out");
  const Json& data = this->config().data;
  require(data.value("type", "video") != "video" || !data.value("actions", "").empty(), where,
          ".data.actions: expected the folder of annotation files, got none");
}

Json ActionRecipe::resolved_config() const {
  Json json = DiffusionRecipe::resolved_config();
  json.update(modules::write_fields(action_));
  json["type"] = "action";
  return json;
}

ActionConfig ActionRecipe::action_config() const {
  Json json = dit_config().to_json();  // a robot's folder has the three keys among the others
  for (const auto& [key, value] : action_.action.items()) {
    require(json.value(key, value) == value, where(), ".action.", key, ": the model's folder has ",
            json.value(key, value).dump(), ", the config expects ", value.dump());
    json[key] = value;
  }
  return ActionConfig::from_json(json, where() + ".action");
}

std::shared_ptr<CosmosTransformer3DModel> ActionRecipe::fresh_transformer() const {
  return std::make_shared<CosmosActionTransformer3DModel>(action_config());
}

std::shared_ptr<CosmosTransformer3DModel> ActionRecipe::read_transformer() const {
  const ActionConfig config = action_config();
  auto base = DiffusionRecipe::read_transformer();
  if (base->class_name() == "CosmosActionTransformer3DModel") return base;
  auto robot = std::make_shared<CosmosActionTransformer3DModel>(config);
  const torch::NoGradGuard no_grad;
  auto places = robot->named_parameters();
  for (const auto& weight : base->named_parameters()) places[weight.key()].set_data(weight.value());
  return robot;
}

ActionRecipe::Draws ActionRecipe::draw(const Batch& batch, uint64_t seed, bool training,
                                       int64_t repeat) {
  require(batch.tensors.count("action") > 0, where(), ".data: the samples have no actions");
  return DiffusionRecipe::draw(batch, seed, training, repeat);
}

std::shared_ptr<Recipe> make_action_recipe(const Json& config, const std::string& where) {
  return std::make_shared<ActionRecipe>(config, where);
}

}  // namespace cosmos::trainer
