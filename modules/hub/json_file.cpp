#include "modules/hub/json_file.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "modules/hub/atomic_file.h"
#include "ops/core/error.h"

namespace cosmos::modules {
namespace {

// Builds the value event by event, which is where duplicate keys and depth can be seen.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(std::string_view text, const std::string& where, int max_depth)
      : text_(text), where_(where), max_depth_(max_depth) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return stack_.pop_back(), true; }
  bool end_array() override { return stack_.pop_back(), true; }

  bool key(string_t& name) override {
    require(!stack_.back()->contains(name), where_, ": key \"", printable(name),
            "\" appears twice");
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override {
    const std::string_view before = text_.substr(0, std::min(position, text_.size()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    // Keep nlohmann's reason ("syntax error while parsing value - unexpected ..."), drop its
    // prefix.
    std::string reason = error.what();
    const std::size_t colon = reason.find(": ");
    if (colon != std::string::npos) reason = reason.substr(colon + 2);
    fail(where_, ":", line, ": not valid JSON: ", printable(reason));
  }

  Json take() { return std::move(root_); }

 private:
  Json* place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool add(Json value) { return place(std::move(value)), true; }
  bool open(Json container) {
    require(static_cast<int>(stack_.size()) < max_depth_, where_, ": nested deeper than ",
            max_depth_, " levels");
    // Only the innermost container grows, so pointers to those around it stay valid.
    stack_.push_back(place(std::move(container)));
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  int max_depth_;
  Json root_;
  std::vector<Json*> stack_;
  std::string key_;
};

bool has_non_finite(const Json& json) {
  if (json.is_number_float()) return !std::isfinite(json.get<double>());
  if (!json.is_structured()) return false;
  return std::any_of(json.begin(), json.end(), has_non_finite);
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonOptions& options) {
  StrictBuilder builder(text, where, options.max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, /*strict=*/true,
                  options.comments);
  return builder.take();
}

Json read_json(const std::filesystem::path& path, const JsonOptions& options) {
  return parse_json(read_file(path, options.max_bytes), path.string(), options);
}

std::string json_text(const Json& json, const std::string& where) {
  require(!has_non_finite(json), where, ": holds NaN or infinity, which JSON cannot express");
  try {
    return json.dump(2) + "\n";
  } catch (const Json::exception& error) {
    fail(where, ": cannot be written as JSON: ", printable(error.what()));
  }
}

void write_json(const std::filesystem::path& path, const Json& json) {
  write_file(path, json_text(json, path.string()));
}

}  // namespace cosmos::modules
