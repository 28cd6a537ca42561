#pragma once

// Sizes on the command line.

#include <cstdlib>
#include <string>
#include <utility>

#include "ops/core/error.h"

namespace cosmos::tools {

/// "5GB", "500MB", "1GiB", "123456" -> bytes. Throws Error that names the option on anything else.
inline int64_t parse_bytes(const std::string& text, const std::string& option) {
  static const std::pair<const char*, double> kUnits[] = {
      {"KB", 1e3},        {"MB", 1e6},           {"GB", 1e9}, {"KiB", 1024.0},
      {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"B", 1},    {"", 1}};
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  for (const auto& [unit, factor] : kUnits)
    if (end != text.c_str() && std::string(end) == unit && number * factor >= 1 &&
        number * factor < 9e18)
      return static_cast<int64_t>(number * factor);
  fail(option, ": expected a size such as 5GB or 500MB, got ", text);
}

}  // namespace cosmos::tools
