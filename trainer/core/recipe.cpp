#include "trainer/core/recipe.h"

#include <utility>

#include "modules/core/fields.h"

namespace cosmos::trainer {
namespace {

std::map<std::string, RecipeFactory>& factories() {
  static std::map<std::string, RecipeFactory> table;
  return table;
}

}  // namespace

void register_recipe(const std::string& type, RecipeFactory factory) {
  factories()[type] = std::move(factory);
}

std::shared_ptr<Recipe> make_recipe(const Json& config, const std::string& where) {
  require(config.is_object() && config.contains("type") && config["type"].is_string(), where,
          ".type: expected the name of a recipe");
  const std::string type = config["type"];
  std::vector<std::string> known;
  for (const auto& [name, factory] : factories()) known.push_back(name);
  auto found = factories().find(type);
  const std::string near = modules::nearest(type, known);
  require(found != factories().end(), where, ".type: \"", type, "\" is not a recipe",
          near.empty() ? "" : " (did you mean " + near + "?)");
  Json rest = config;
  rest.erase("type");
  return found->second(rest, where);
}

}  // namespace cosmos::trainer
