#include "trainer/config/config.h"

namespace cosmos::trainer {
namespace {

template <typename T>
Json schema_of();

// Visits the fields of a struct that holds its defaults.
struct SchemaVisitor {
  Json properties = Json::object();

  template <typename T>
  void operator()(const char* key, T& value, const char* help = "") {
    Json property = schema_of<T>();
    property["description"] = help;
    if constexpr (!modules::HasFields<T>::value && !std::is_same_v<T, Json>)
      property["default"] = modules::write_value(value);
    properties[key] = std::move(property);
  }
};

template <typename T>
Json schema_of() {
  if constexpr (std::is_same_v<T, Json>) {
    // Read by the recipe itself, which names the settings it knows.
    return {{"type", "object"}, {"properties", {{"type", {{"type", "string"}}}}}};
  } else if constexpr (modules::IsVector<T>::value) {
    return {{"type", "array"}, {"items", schema_of<typename T::value_type>()}};
  } else if constexpr (modules::IsMap<T>::value) {
    return {{"type", "object"}, {"additionalProperties", schema_of<typename T::mapped_type>()}};
  } else if constexpr (modules::HasFields<T>::value) {
    T defaults;
    SchemaVisitor visitor;
    defaults.fields(visitor);
    return {{"type", "object"},
            {"properties", std::move(visitor.properties)},
            {"additionalProperties", false}};
  } else if constexpr (std::is_same_v<T, bool>) {
    return {{"type", "boolean"}};
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return {{"type", "integer"}};
  } else if constexpr (std::is_same_v<T, double>) {
    return {{"type", "number"}};
  } else {
    return {{"type", "string"}};
  }
}

}  // namespace

Json config_schema() {
  Json schema = schema_of<Config>();
  schema["$schema"] = "http://json-schema.org/draft-07/schema#";
  schema["title"] = "cosmos-train config";
  schema["properties"]["$schema"] = {{"type", "string"}};
  schema["properties"]["base"] = {{"type", "string"},
                                  {"description", "file whose settings this one overrides"}};
  return schema;
}

}  // namespace cosmos::trainer
