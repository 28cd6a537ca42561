#include "modules/text/added_tokens.h"

#include <algorithm>

#include "modules/text/unicode.h"

namespace cosmos::modules::text {
namespace {

/// Where the character before `at` begins.
std::size_t char_before(std::string_view text, std::size_t at) {
  do --at;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool word_before(std::string_view text, std::size_t at) {
  if (at == 0) return false;
  std::size_t begin = char_before(text, at);
  return is_word_char(next_char(text, begin));
}

bool word_after(std::string_view text, std::size_t at) {
  return at < text.size() && is_word_char(next_char(text, at));
}

std::size_t skip_spaces_back(std::string_view text, std::size_t at, std::size_t limit) {
  while (at > limit) {
    const std::size_t begin = char_before(text, at);
    std::size_t next = begin;
    if (!is_white_space(next_char(text, next))) break;
    at = begin;
  }
  return at;
}

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    std::size_t next = at;
    if (!is_white_space(next_char(text, next))) break;
    at = next;
  }
  return at;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens) {
  for (const auto& token : tokens)
    if (!token.content.empty())
      by_byte_[static_cast<unsigned char>(token.content[0])].push_back(token);
  for (auto& list : by_byte_)
    std::stable_sort(list.begin(), list.end(), [](const AddedToken& a, const AddedToken& b) {
      return a.content.size() > b.content.size();
    });
}

const AddedToken* AddedTokenFinder::match(std::string_view text, std::size_t at) const {
  for (const auto& token : by_byte_[static_cast<unsigned char>(text[at])])
    if (text.compare(at, token.content.size(), token.content) == 0) return &token;
  return nullptr;
}

std::vector<Stretch> AddedTokenFinder::split(std::string_view text) const {
  std::vector<Stretch> stretches;
  std::size_t done = 0;  // everything before it is in `stretches`
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = match(text, at);
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->single_word && (word_before(text, begin) || word_after(text, end))) continue;
    if (token->lstrip) begin = skip_spaces_back(text, begin, std::min(done, begin));
    if (token->rstrip) end = skip_spaces(text, end);
    begin = std::max(begin, done);
    if (done < begin) stretches.push_back({text.substr(done, begin - done)});
    stretches.push_back({text.substr(begin, end > begin ? end - begin : 0), token->id});
    done = std::max(done, end);
  }
  if (done < text.size()) stretches.push_back({text.substr(done)});
  return stretches;
}

}  // namespace cosmos::modules::text
