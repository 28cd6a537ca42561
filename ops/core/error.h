#pragma once

// Errors that a user can mend: thrown by libraries, printed by main() only, one line each.

#include <sstream>
#include <stdexcept>
#include <string>

namespace cosmos {

/// Bad input (a config, a file, a shape). what() is one line: where, expected, got, likely fix.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with the arguments streamed together.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

/// Throws Error with the arguments streamed together unless `condition` holds.
template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

}  // namespace cosmos
