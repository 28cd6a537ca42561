#include "modules/text/unicode.h"

#include <cstdint>

#include "ops/core/error.h"

#ifdef COSMOS_TEXT
#include <cstdlib>
#include <utf8proc.h>
#endif

namespace cosmos::modules::text {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

/// One step of a decoder: `length` bytes that are a character, or a maximal broken piece.
struct Step {
  std::size_t length = 1;
  bool valid = false;
  bool cut = false;  ///< broken by the end of the text only
};

/// The bytes that may follow `lead` as second byte (Unicode, table 3-7).
std::pair<uint8_t, uint8_t> second_range(uint8_t lead) {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

Step decode_step(std::string_view text, std::size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) return {.length = 1, .valid = true};
  if (lead < 0xC2 || lead > 0xF4) return {};
  const std::size_t length = sequence_length(text[at]);
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return {.length = i, .cut = true};
    const auto byte = static_cast<uint8_t>(text[at + i]);
    const auto [low, high] = i == 1 ? second_range(lead) : std::pair<uint8_t, uint8_t>{0x80, 0xBF};
    if (byte < low || byte > high) return {.length = i};
  }
  return {.length = length, .valid = true};
}

}  // namespace

bool available() {
#ifdef COSMOS_TEXT
  return true;
#else
  return false;
#endif
}

void require_available() {
  require(available(),
          "this build has no text tokenizers: install libpcre2-dev and libutf8proc-dev, configure "
          "and build again");
}

void require_utf8(std::string_view text, const std::string& where) {
  for (std::size_t at = 0; at < text.size();) {
    const Step step = decode_step(text, at);
    require(step.valid, where, ": not UTF-8 at byte ", at);
    at += step.length;
  }
}

std::size_t sequence_length(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

char32_t next_char(std::string_view text, std::size_t& at) {
  const std::size_t length = sequence_length(text[at]);
  const auto lead = static_cast<uint8_t>(text[at]);
  char32_t c = length == 1 ? lead : lead & (0xFF >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) c = c << 6 | (static_cast<uint8_t>(text[at + i]) & 0x3F);
  at += length;
  return c;
}

void append_char(std::string& text, char32_t c) {
  static const uint8_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  const int tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  text += static_cast<char>(kLead[tail] | c >> (6 * tail));
  for (int i = tail - 1; i >= 0; --i) text += static_cast<char>(0x80 | (c >> (6 * i) & 0x3F));
}

std::string replace_invalid(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const Step step = decode_step(bytes, at);
    step.valid ? text += bytes.substr(at, step.length) : text += kReplacement;
    at += step.length;
  }
  return text;
}

std::size_t settled_bytes(std::string_view bytes) {
  for (std::size_t at = bytes.size() < 3 ? 0 : bytes.size() - 3; at < bytes.size(); ++at)
    if (decode_step(bytes, at).cut) return at;
  return bytes.size();
}

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

#ifdef COSMOS_TEXT

std::string normalize(std::string_view text, Form form) {
  static const int kOptions[] = {UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE,
                                 UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                                 UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
  utf8proc_uint8_t* out = nullptr;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | kOptions[static_cast<int>(form)]);
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &out, options);
  require(length >= 0, "normalisation of text: ", utf8proc_errmsg(length));
  std::string result(reinterpret_cast<const char*>(out), static_cast<std::size_t>(length));
  std::free(out);
  return result;
}

std::vector<std::size_t> grapheme_ends(std::string_view text) {
  std::vector<std::size_t> ends;
  utf8proc_int32_t state = 0;
  char32_t previous = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = next_char(text, at);
    if (begin > 0 && utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                                      static_cast<utf8proc_int32_t>(c), &state))
      ends.push_back(begin);
    previous = c;
  }
  if (!text.empty()) ends.push_back(text.size());
  return ends;
}

bool is_word_char(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D;
  }
}

#else

std::string normalize(std::string_view, Form) {
  require_available();
  return {};
}
std::vector<std::size_t> grapheme_ends(std::string_view) {
  require_available();
  return {};
}
bool is_word_char(char32_t) {
  require_available();
  return false;
}

#endif

}  // namespace cosmos::modules::text
