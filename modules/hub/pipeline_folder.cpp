#include "modules/hub/pipeline_folder.h"

#include "modules/core/fields.h"
#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

constexpr const char* kFile = "model_index.json";

bool is_component(const Json& value) {
  const auto name = [](const Json& item) { return item.is_null() || item.is_string(); };
  return value.is_array() && value.size() == 2 && name(value[0]) && name(value[1]);
}

std::string text_or_empty(const Json& value) {
  return value.is_null() ? "" : value.get<std::string>();
}

}  // namespace

bool is_pipeline_folder(const std::filesystem::path& dir) {
  return is_file(dir / kFile);
}

PipelineIndex read_pipeline_index(const std::filesystem::path& dir) {
  const std::string where = (dir / kFile).string();
  const Json json = read_json(dir / kFile);
  require(json.is_object() && json.contains("_class_name") && json["_class_name"].is_string(),
          where, ": expected an object with a \"_class_name\"");
  PipelineIndex index{.class_name = json["_class_name"].get<std::string>()};
  for (const auto& [key, value] : json.items()) {
    if (key == "_class_name") continue;
    if (key.rfind("_", 0) == 0 || !is_component(value)) {
      index.extra[key] = value;
      continue;
    }
    const PipelineComponent component{text_or_empty(value[0]), text_or_empty(value[1])};
    require(key.find_first_of("/\\") == std::string::npos && key != "..", where, ": component ",
            printable(key), " is not a plain folder name");
    std::error_code error;
    require(component.class_name.empty() || std::filesystem::is_directory(dir / key, error), where,
            ": component folder ", printable(key), " is missing (download incomplete?)");
    index.components[key] = component;
  }
  return index;
}

void write_pipeline_index(const std::filesystem::path& dir, const PipelineIndex& index) {
  Json json = index.extra;
  json["_class_name"] = index.class_name;
  for (const auto& [name, component] : index.components) {
    if (component.class_name.empty()) {
      json[name] = {nullptr, nullptr};
    } else {
      json[name] = {component.library, component.class_name};
    }
  }
  write_json(dir / kFile, json);
}

}  // namespace cosmos::modules
