#pragma once

// The regular expressions of pre-tokenizers, over PCRE2.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cosmos::modules::text {

/// Patterns are written for the reference's engine (Oniguruma); \s and \S mean White_Space here as
/// there (PCRE2 counts U+180E as white space too). Several threads may use one.
class Regex {
 public:
  /// Throws Error when the pattern does not compile; `where` names it.
  Regex(const std::string& pattern, const std::string& where);

  /// [begin, end) of every match that is not empty, left to right. `text` is valid UTF-8. Throws
  /// Error when a match takes too many steps.
  std::vector<std::pair<std::size_t, std::size_t>> find_all(std::string_view text) const;

 private:
  std::shared_ptr<const void> code_;
  std::string where_;
};

/// `pattern` with \s and \S spelled out.
std::string spell_out_white_space(const std::string& pattern);

}  // namespace cosmos::modules::text
