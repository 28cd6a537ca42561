#pragma once

// UTF-8 as tokenizers need it. Text that users give is checked once (require_utf8); behind that
// everything may rely on it.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace cosmos::modules::text {

/// Whether this build has text tokenizers: PCRE2 and utf8proc were found (COSMOS_TEXT).
bool available();
/// Throws Error saying how to get a build that has them.
void require_available();

/// Throws Error naming the first bad byte; surrogates and overlong forms are bad too. `where` names
/// the text.
void require_utf8(std::string_view text, const std::string& where);

/// Bytes of the sequence that starts with `lead`, in valid UTF-8.
std::size_t sequence_length(char lead);
/// The character at `at`, which moves past it. Valid UTF-8 only.
char32_t next_char(std::string_view text, std::size_t& at);
void append_char(std::string& text, char32_t c);

/// Bytes as text: each maximal piece of a broken sequence becomes U+FFFD, as Unicode recommends
/// and every decoder of the reference does.
std::string replace_invalid(std::string_view bytes);
/// How many of `bytes` are settled: all but a last sequence that further bytes could complete.
std::size_t settled_bytes(std::string_view bytes);

/// Unicode property White_Space.
bool is_white_space(char32_t c);

enum class Form { kNFC, kNFD, kNFKC, kNFKD };
std::string normalize(std::string_view text, Form form);
/// Ends of the extended grapheme clusters of `text`, in order.
std::vector<std::size_t> grapheme_ends(std::string_view text);
/// Letters, marks, digits, connecting punctuation: \w of a regular expression.
bool is_word_char(char32_t c);

}  // namespace cosmos::modules::text
