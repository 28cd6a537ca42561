#include "modules/text/normalizer.h"

#include <algorithm>
#include <cstring>

#include "ops/core/error.h"

namespace cosmos::modules::text {
namespace {

/// Marks and compositions that came after Unicode 9, whose tables the reference normalises by: to
/// it they are characters like any other. First and last of each range, in order.
constexpr std::pair<char32_t, char32_t> kAfterUnicode9[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

bool is_after_unicode_9(char32_t c) {
  const auto range = std::partition_point(std::begin(kAfterUnicode9), std::end(kAfterUnicode9),
                                          [c](const auto& r) { return r.second < c; });
  return range != std::end(kAfterUnicode9) && range->first <= c;
}

}  // namespace

std::string UnicodeNormalizer::apply(std::string text) const {
  if (std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; })) return text;
  const std::string_view whole = text;
  std::string out;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < whole.size();) {
    const std::size_t here = at;
    if (!is_after_unicode_9(next_char(whole, at))) continue;
    out += normalize(whole.substr(begin, here - begin), form_);
    out += whole.substr(here, at - here);
    begin = at;
  }
  return out + normalize(whole.substr(begin), form_);
}

CharsMapNormalizer::CharsMapNormalizer(const std::string& charsmap, const std::string& where) {
  require(charsmap.size() > 4, where, ": precompiled_charsmap: expected more than 4 bytes, got ",
          charsmap.size());
  uint32_t bytes = 0;
  std::memcpy(&bytes, charsmap.data(), 4);
  require(bytes % 4 == 0 && bytes > 0 && bytes <= charsmap.size() - 4, where,
          ": precompiled_charsmap: a trie of ", bytes, " bytes does not fit its ", charsmap.size(),
          " bytes");
  trie_.resize(bytes / 4);
  std::memcpy(trie_.data(), charsmap.data() + 4, bytes);
  replacements_ = charsmap.substr(4 + bytes);
  require_utf8(replacements_, where + ": precompiled_charsmap");
}

bool CharsMapNormalizer::replace(std::string_view chunk, std::string& out) const {
  // Units of darts-clone: label in the low byte (bit 31 set: a value), bit 8 says that a value
  // follows, bits 10 and up are the offset to the children, in steps of 256 when bit 9 is set.
  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); };
  uint32_t at = offset(trie_[0]);
  for (const char c : chunk) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte == 0) return false;
    at ^= byte;
    if (at >= trie_.size() || (trie_[at] & 0x800000FF) != byte) return false;
    const uint32_t unit = trie_[at];
    at ^= offset(unit);
    if ((unit & 0x100) == 0) continue;
    const uint32_t begin = at < trie_.size() ? trie_[at] & 0x7FFFFFFF : 0x7FFFFFFF;
    if (begin >= replacements_.size() || (begin > 0 && replacements_[begin - 1] != 0)) return false;
    out += replacements_.c_str() + begin;  // up to its zero byte
    return true;
  }
  return false;
}

std::string CharsMapNormalizer::apply(std::string text) const {
  std::string out;
  out.reserve(text.size());
  std::size_t begin = 0;
  for (const std::size_t end : grapheme_ends(text)) {
    const std::string_view grapheme = std::string_view(text).substr(begin, end - begin);
    begin = end;
    if (grapheme.size() < 6 && replace(grapheme, out)) continue;
    for (std::size_t at = 0; at < grapheme.size();) {
      const std::string_view c = grapheme.substr(at, sequence_length(grapheme[at]));
      if (!replace(c, out)) out += c;
      at += c.size();
    }
  }
  return out;
}

std::string NormalizerSequence::apply(std::string text) const {
  for (const auto& step : steps_) text = step->apply(std::move(text));
  return text;
}

}  // namespace cosmos::modules::text
