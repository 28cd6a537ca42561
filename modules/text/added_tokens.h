#pragma once

// Tokens that are cut out of the text before anything else: <|im_start|>, </s>, <extra_id_0>.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cosmos::modules::text {

/// As tokenizer.json and tokenizer_config.json describe one.
struct AddedToken {
  std::string content;
  int64_t id = -1;
  bool special = false;      ///< left out by decode(skip_special)
  bool normalized = false;   ///< looked for in normalised text, not in the text as given
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes white space before it
  bool rstrip = false;       ///< takes white space after it
};

/// A stretch of text, or an added token in place of it (id >= 0).
struct Stretch {
  std::string_view text;
  int64_t id = -1;
};

/// Finds the leftmost token, the longest of those that start there, and goes on behind it.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);
  /// Stretches of `text` in order; empty ones are left out.
  std::vector<Stretch> split(std::string_view text) const;

 private:
  const AddedToken* match(std::string_view text, std::size_t at) const;
  std::array<std::vector<AddedToken>, 256> by_byte_;  ///< by first byte, longest first
};

}  // namespace cosmos::modules::text
