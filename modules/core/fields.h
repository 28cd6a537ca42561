#pragma once

// One list of fields per config struct drives reading, writing, checking and the JSON Schema:
//
//   struct OptimizerConfig {
//     double lr = 1e-4;
//     template <typename Visitor> void fields(Visitor& v) { v("lr", lr, "peak learning rate"); }
//   };
//   OptimizerConfig c;
//   read_fields(json, c, "configs/x.json: trainer.optimizer", UnknownKeys::kRefuse);
//   Json resolved = write_fields(c);
//
// Values: bool, int64_t, double, std::string, Json, std::optional<T>, std::vector<T>,
// std::map<std::string, T> and structs that have fields() themselves. A key that is absent keeps
// the default. Errors name the full path, what was expected, what was found, and the nearest key.

#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "modules/core/model.h"

namespace cosmos::modules {

enum class UnknownKeys {
  kRefuse,  ///< our own configs: an unknown key is a typo
  kKeep,    ///< Hugging Face configs: unknown keys pass through untouched
};

/// The candidate nearest to `word` by edit distance, or "" when none is near enough to suggest.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// "a.b" for ("a", "b"), "x.json: b" for ("x.json: ", "b"): the first key follows the file's name.
std::string join_path(const std::string& path, const std::string& key);

/// "string", "integer", "number", ... with the value, for messages.
std::string describe(const Json& value);

template <typename T, typename = void>
struct HasFields : std::false_type {};
struct FieldProbe {
  template <typename T>
  void operator()(const char*, T&, const char* = "") {}
};
template <typename T>
struct HasFields<T, std::void_t<decltype(std::declval<T&>().fields(std::declval<FieldProbe&>()))>>
    : std::true_type {};

template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};
template <typename T>
struct IsMap : std::false_type {};
template <typename T>
struct IsMap<std::map<std::string, T>> : std::true_type {};

template <typename T>
void read_fields(const Json& json, T& config, const std::string& path, UnknownKeys unknown);

void read_scalar(const Json& json, bool& value, const std::string& path);
void read_scalar(const Json& json, int64_t& value, const std::string& path);
void read_scalar(const Json& json, double& value, const std::string& path);
void read_scalar(const Json& json, std::string& value, const std::string& path);

/// Reads any supported value; `path` names it in errors.
template <typename T>
void read_value(const Json& json, T& value, const std::string& path, UnknownKeys unknown) {
  if constexpr (std::is_same_v<T, Json>) {
    value = json;
  } else if constexpr (IsOptional<T>::value) {
    if (json.is_null()) {
      value.reset();
    } else {
      read_value(json, value.emplace(), path, unknown);
    }
  } else if constexpr (IsVector<T>::value) {
    require(json.is_array(), path, ": expected a list, got ", describe(json));
    value.clear();
    for (std::size_t i = 0; i < json.size(); ++i) {
      typename T::value_type item{};
      read_value(json[i], item, path + "[" + std::to_string(i) + "]", unknown);
      value.push_back(std::move(item));
    }
  } else if constexpr (IsMap<T>::value) {
    require(json.is_object(), path, ": expected an object, got ", describe(json));
    value.clear();
    for (const auto& [key, item] : json.items())
      read_value(item, value[key], join_path(path, key), unknown);
  } else if constexpr (HasFields<T>::value) {
    read_fields(json, value, path, unknown);
  } else {
    read_scalar(json, value, path);
  }
}

/// Collects the keys of a struct, for "did you mean".
struct FieldNames {
  std::vector<std::string> names;
  template <typename T>
  void operator()(const char* key, T&, const char* = "") {
    names.emplace_back(key);
  }
};

struct FieldReader {
  const Json& json;
  const std::string& path;
  UnknownKeys unknown;
  template <typename T>
  void operator()(const char* key, T& value, const char* = "") {
    auto found = json.find(key);
    if (found != json.end()) read_value(*found, value, join_path(path, key), unknown);
  }
};

/// Throws unless every key of `json` is among `names`.
void refuse_unknown(const Json& json, const std::vector<std::string>& names,
                    const std::string& path);

template <typename T>
void read_fields(const Json& json, T& config, const std::string& path, UnknownKeys unknown) {
  require(json.is_object(), path, ": expected an object, got ", describe(json));
  if (unknown == UnknownKeys::kRefuse) {
    FieldNames known;
    config.fields(known);
    refuse_unknown(json, known.names, path);
  }
  FieldReader reader{json, path, unknown};
  config.fields(reader);
}

/// The entries of the object `json` that `config` has no field for: what a config keeps of keys it
/// does not know.
template <typename T>
Json without_fields(Json json, T& config) {
  FieldNames known;
  config.fields(known);
  for (const auto& name : known.names) json.erase(name);
  return json;
}

template <typename T>
Json write_fields(const T& config);

template <typename T>
Json write_value(const T& value) {
  if constexpr (IsOptional<T>::value) {
    return value ? write_value(*value) : Json(nullptr);
  } else if constexpr (IsVector<T>::value) {
    Json list = Json::array();
    for (const auto& item : value) list.push_back(write_value(item));
    return list;
  } else if constexpr (IsMap<T>::value) {
    Json object = Json::object();
    for (const auto& [key, item] : value) object[key] = write_value(item);
    return object;
  } else if constexpr (HasFields<T>::value) {
    return write_fields(value);
  } else {
    return Json(value);
  }
}

struct FieldWriter {
  Json json = Json::object();
  template <typename T>
  void operator()(const char* key, T& value, const char* = "") {
    json[key] = write_value(value);
  }
};

/// Every field with its current value.
template <typename T>
Json write_fields(const T& config) {
  FieldWriter writer;
  const_cast<T&>(config).fields(writer);  // visitors share one non-const fields(); this one reads
  return writer.json;
}

}  // namespace cosmos::modules
