#pragma once

// JSON as we accept it from outside: duplicate keys, NaN, trailing text, broken UTF-8 and absurd
// depth are refused, each with file and line. Stricter than nlohmann::json::parse, which keeps the
// last of two equal keys.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cosmos {
using Json = nlohmann::json;
}

namespace cosmos::modules {

struct JsonOptions {
  bool comments = false;  ///< accept // and /* */ (our own configs; Hugging Face has none)
  int max_depth = 64;     ///< nesting of lists and objects
  uint64_t max_bytes = 64ull << 20;  ///< of the file
};

/// `where` names the text in errors: "where:LINE: what is wrong".
Json parse_json(std::string_view text, const std::string& where, const JsonOptions& options = {});

/// Throws Error when the file is missing, too large or not JSON.
Json read_json(const std::filesystem::path& path, const JsonOptions& options = {});

/// Two spaces of indentation, sorted keys and a final newline, as save_pretrained writes it. NaN
/// and infinity are refused: JSON has neither. `where` names the file.
std::string json_text(const Json& json, const std::string& where);

/// Writes json_text(), atomically.
void write_json(const std::filesystem::path& path, const Json& json);

}  // namespace cosmos::modules
