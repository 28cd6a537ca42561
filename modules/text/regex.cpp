#include "modules/text/regex.h"

#include "modules/text/unicode.h"
#include "ops/core/error.h"

#ifdef COSMOS_TEXT
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

namespace cosmos::modules::text {

std::string spell_out_white_space(const std::string& pattern) {
  const std::string spaces =
      R"(\t-\r\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += in_class ? spaces : "[" + spaces + "]";
      } else if (escaped == 'S' && !in_class) {
        out += "[^" + spaces + "]";
      } else {
        out += {c, escaped};
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

#ifdef COSMOS_TEXT

Regex::Regex(const std::string& pattern, const std::string& where) : where_(where) {
  const std::string text = spell_out_white_space(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!code) {
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(error, message, sizeof message);
    fail(where, ": the pattern ", pattern,
         " does not compile: ", reinterpret_cast<const char*>(message));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter runs it
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

std::vector<std::pair<std::size_t, std::size_t>> Regex::find_all(std::string_view text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
  std::vector<std::pair<std::size_t, std::size_t>> matches;
  for (std::size_t at = 0; at < text.size();) {
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      PCRE2_UCHAR message[128];
      pcre2_get_error_message(found, message, sizeof message);
      fail(where_, ": splitting a text of ", text.size(),
           " bytes: ", reinterpret_cast<const char*>(message));
    }
    if (span[1] > span[0]) matches.emplace_back(span[0], span[1]);
    at = span[1] > span[0] ? span[1] : span[0] + sequence_length(text[span[0]]);
  }
  return matches;
}

#else

Regex::Regex(const std::string&, const std::string& where) : where_(where) {
  require_available();
}
std::vector<std::pair<std::size_t, std::size_t>> Regex::find_all(std::string_view) const {
  return {};
}

#endif

}  // namespace cosmos::modules::text
