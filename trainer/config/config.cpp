#include "trainer/config/config.h"

#include <algorithm>
#include <cmath>

#include "modules/hub/json_file.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

// Objects merge key by key; everything else replaces. A recipe of another type starts afresh.
void merge(Json& into, const Json& over) {
  if (!into.is_object() || !over.is_object()) {
    into = over;
    return;
  }
  for (const auto& [key, value] : over.items()) merge(into[key], value);
}

void merge_config(Json& into, const Json& over) {
  const bool new_recipe = over.contains("recipe") && over["recipe"].is_object() &&
                          over["recipe"].contains("type") && into.contains("recipe") &&
                          into["recipe"].value("type", Json()) != over["recipe"]["type"];
  if (new_recipe) into.erase("recipe");
  merge(into, over);
}

// Reads a layer on its own, so that a typo is reported in the file that has it.
void check_layer(const Json& layer, const std::string& source) {
  Config probe;
  modules::read_fields(layer, probe, source + ": ", modules::UnknownKeys::kRefuse);
  require(probe.recipe.is_object(), source, ": recipe: expected an object, got ",
          modules::describe(probe.recipe));
}

Json read_layers(const fs::path& file, std::vector<fs::path>& chain) {
  const fs::path real = fs::weakly_canonical(file);
  require(std::find(chain.begin(), chain.end(), real) == chain.end(), file.string(),
          ": base: the file is its own base");
  chain.push_back(real);
  Json layer = modules::read_json(file, {.comments = true});
  require(layer.is_object(), file.string(), ": expected an object, got ", modules::describe(layer));
  Json merged = Json::object();
  if (auto base = layer.find("base"); base != layer.end()) {
    require(base->is_string(), file.string(), ": base: expected a file name, got ",
            modules::describe(*base));
    const fs::path base_file = file.parent_path() / base->get<std::string>();
    require(fs::exists(base_file), file.string(), ": base: no such file: ", base_file.string());
    merged = read_layers(base_file, chain);
    layer.erase("base");
  }
  layer.erase("$schema");
  check_layer(layer, file.string());
  merge_config(merged, layer);
  return merged;
}

Json parse_override(const std::string& text) {
  const std::size_t equals = text.find('=');
  require(equals != std::string::npos && equals > 0, "command line: \"", text,
          "\": expected key.path=value, for example trainer.steps=100");
  const std::string value = text.substr(equals + 1);
  Json layer = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  if (layer.is_discarded()) layer = value;  // a bare string
  std::string path = text.substr(0, equals);
  while (!path.empty()) {
    const std::size_t dot = path.rfind('.');
    const std::string key = dot == std::string::npos ? path : path.substr(dot + 1);
    layer = Json{{key, layer}};
    path = dot == std::string::npos ? "" : path.substr(0, dot);
  }
  return layer;
}

}  // namespace

Config parse_config(const Json& json, const std::string& source) {
  Config config;
  config.source = source;
  check_layer(json, source);
  modules::read_fields(json, config, source + ": ", modules::UnknownKeys::kRefuse);
  return config;
}

Config load_config(const fs::path& file, const std::vector<std::string>& overrides) {
  std::vector<fs::path> chain;
  Json merged = read_layers(file, chain);
  for (const std::string& text : overrides) {
    const Json layer = parse_override(text);
    check_layer(layer, "command line");
    // recipe.type=x alone keeps the file's other recipe settings only when the type stays.
    merge_config(merged, layer);
  }
  return parse_config(merged, file.string());
}

Json resolved(const Config& config) {
  return modules::write_fields(config);
}

}  // namespace cosmos::trainer
