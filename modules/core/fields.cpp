#include "modules/core/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cosmos::modules {
namespace {

int64_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<int64_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int64_t change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  int64_t best_distance = static_cast<int64_t>(word.size()) / 2 + 1;
  for (const auto& candidate : candidates) {
    const int64_t distance = edit_distance(word, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

std::string join_path(const std::string& path, const std::string& key) {
  return path.empty() || path.back() == ' ' ? path + key : path + "." + key;
}

std::string describe(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return std::string(value.type_name()) + " " + text;
}

void refuse_unknown(const Json& json, const std::vector<std::string>& names,
                    const std::string& path) {
  for (const auto& [key, value] : json.items()) {
    if (std::find(names.begin(), names.end(), key) != names.end()) continue;
    const std::string near = nearest(key, names);
    fail(join_path(path, key), " is not a setting",
         near.empty() ? " (known: " + join(names) + ")" : " (did you mean " + near + "?)");
  }
}

void read_scalar(const Json& json, bool& value, const std::string& path) {
  require(json.is_boolean(), path, ": expected true or false, got ", describe(json));
  value = json.get<bool>();
}

void read_scalar(const Json& json, int64_t& value, const std::string& path) {
  // 1e6 is a float to JSON; accept it where it is a whole number.
  if (json.is_number_float()) {
    const double number = json.get<double>();
    require(std::floor(number) == number && std::abs(number) < 9e15, path,
            ": expected a whole number, got ", describe(json));
    value = static_cast<int64_t>(number);
    return;
  }
  require(json.is_number_integer(), path, ": expected a whole number, got ", describe(json));
  if (json.is_number_unsigned())
    require(json.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()),
            path, ": ", describe(json), " is too large");
  value = json.get<int64_t>();
}

void read_scalar(const Json& json, double& value, const std::string& path) {
  require(json.is_number(), path, ": expected a number, got ", describe(json));
  value = json.get<double>();
}

void read_scalar(const Json& json, std::string& value, const std::string& path) {
  require(json.is_string(), path, ": expected a string, got ", describe(json));
  value = json.get<std::string>();
}

}  // namespace cosmos::modules
