#include "trainer/recipes/multiview.h"

#include "modules/hub/json_file.h"

namespace cosmos::trainer {
namespace {

using modules::CosmosMultiViewTransformer3DModel;
using modules::CosmosTransformer3DModel;
using modules::MultiViewConfig;

Json without_views(Json config) {
  config.erase("views");
  return config;
}

}  // namespace

MultiViewRecipe::MultiViewRecipe(const Json& config, const std::string& where, bool views)
    : DiffusionRecipe(without_views(config), where), has_views_(views) {
  if (!views) return;
  views_.views = config.value("views", Json::object());
  require(views_.views.is_object(), where, ".views: expected an object, got ",
          modules::describe(views_.views));
  modules::refuse_unknown(views_.views, {"state_t", "n_cameras_emb", "view_condition_dim"},
                          where + ".views");
  const std::string type = this->config().data.value("type", "video");
  require(type != "video", where,
          ".data.type: expected multiview (videos of several cameras), got video");
}

Json MultiViewRecipe::resolved_config() const {
  Json json = DiffusionRecipe::resolved_config();
  if (!has_views_) return json;
  json.update(modules::write_fields(views_));
  json["type"] = "multiview";
  return json;
}

MultiViewConfig MultiViewRecipe::view_config() const {
  Json json = dit_config().to_json();  // a multi-view folder has the three keys among the others
  for (const auto& [key, value] : views_.views.items()) {
    require(json.value(key, value) == value, where(), ".views.", key, ": the model's folder has ",
            json.value(key, value).dump(), ", the config expects ", value.dump());
    json[key] = value;
  }
  return MultiViewConfig::from_json(json, where() + ".views");
}

bool MultiViewRecipe::base_has_views() const {
  const Json& model = config().model;
  if (!model.contains("path")) return false;
  const auto file = std::filesystem::path(model["path"].get<std::string>()) / "config.json";
  return std::filesystem::exists(file) &&
         modules::read_json(file).value("_class_name", "") == "CosmosMultiViewTransformer3DModel";
}

std::shared_ptr<CosmosTransformer3DModel> MultiViewRecipe::fresh_transformer() const {
  if (!has_views_) return DiffusionRecipe::fresh_transformer();
  return std::make_shared<CosmosMultiViewTransformer3DModel>(view_config());
}

std::shared_ptr<CosmosTransformer3DModel> MultiViewRecipe::read_transformer() const {
  if (!has_views_) return DiffusionRecipe::read_transformer();
  const MultiViewConfig config = view_config();
  if (base_has_views()) return DiffusionRecipe::read_transformer();
  require(!this->config().lora, where(),
          ".lora: the camera embeddings are new and train whole, and the rest with them; leave ",
          "lora out, or start from a CosmosMultiViewTransformer3DModel");
  const auto base = DiffusionRecipe::read_transformer();
  auto views = std::make_shared<CosmosMultiViewTransformer3DModel>(config);
  views->start_from(*base);
  return views;
}

std::shared_ptr<modules::Model> MultiViewRecipe::model_without_weights() {
  return !has_views_ || base_has_views() ? DiffusionRecipe::model_without_weights() : nullptr;
}

double MultiViewRecipe::tokens_per_sample() const {
  if (!has_views_) return DiffusionRecipe::tokens_per_sample();
  const Json cameras = config().data.value("cameras", Json::array());
  return DiffusionRecipe::tokens_per_sample() *
         static_cast<double>(std::max<size_t>(cameras.size(), 1));
}

MultiViewRecipe::Draws MultiViewRecipe::draw(const Batch& batch, uint64_t seed, bool training,
                                             int64_t repeat) {
  require(!has_views_ || batch.tensors.count("view_indices") > 0, where(),
          ".data: the samples do not say which camera a view is (view_indices)");
  return DiffusionRecipe::draw(batch, seed, training, repeat);
}

std::shared_ptr<Recipe> make_multiview_recipe(const Json& config, const std::string& where) {
  return std::make_shared<MultiViewRecipe>(config, where);
}

}  // namespace cosmos::trainer
