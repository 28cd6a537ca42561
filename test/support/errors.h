#pragma once

// What an error says.

#include <catch2/catch.hpp>
#include <string>

#include "ops/core/error.h"

namespace cosmos::test {

/// What `action` throws, "" when it does not.
template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Whether `text` has `part`; where it has not, the failing check shows both.
inline bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) UNSCOPED_INFO(text << "  lacks  " << part);
  return found;
}

}  // namespace cosmos::test
