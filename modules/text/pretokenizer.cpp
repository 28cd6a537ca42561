#include "modules/text/pretokenizer.h"

#include <array>
#include <cstdint>
#include <unordered_map>

#include "modules/text/unicode.h"

namespace cosmos::modules::text {
namespace {

constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

using Pieces = std::vector<std::string>;

void add_piece(Pieces& pieces, std::string piece) {
  if (!piece.empty()) pieces.push_back(std::move(piece));
}

/// The character of each byte: itself where it is printable Latin-1, else U+0100 and up in order.
struct ByteAlphabet {
  std::array<std::string, 256> chars;
  std::unordered_map<char32_t, char> bytes;

  ByteAlphabet() {
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      const char32_t c = printable ? static_cast<char32_t>(byte) : next++;
      append_char(chars[byte], c);
      bytes[c] = static_cast<char>(byte);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet table;
  return table;
}

}  // namespace

std::string to_byte_level(const std::string& bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 2);
  for (const char byte : bytes) out += alphabet().chars[static_cast<uint8_t>(byte)];
  return out;
}

std::string from_byte_level(const std::string& token) {
  std::string out;
  for (std::size_t at = 0; at < token.size();) {
    const auto found = alphabet().bytes.find(next_char(token, at));
    if (found == alphabet().bytes.end()) return token;
    out += found->second;
  }
  return out;
}

Pieces SplitPattern::split(const std::string& piece, bool) const {
  Pieces pieces;
  std::size_t last = 0;
  const bool matches = keep_matches_ || invert_, gaps = keep_matches_ || !invert_;
  for (const auto& [begin, end] : regex_.find_all(piece)) {
    if (gaps) add_piece(pieces, piece.substr(last, begin - last));
    if (matches) add_piece(pieces, piece.substr(begin, end - begin));
    last = end;
  }
  if (gaps) add_piece(pieces, piece.substr(last));
  return pieces;
}

ByteLevelSplit::ByteLevelSplit(bool add_prefix_space, bool use_pattern)
    : add_prefix_space_(add_prefix_space),
      pattern_(use_pattern ? std::make_shared<Regex>(kGpt2Pattern, "ByteLevel") : nullptr) {}

Pieces ByteLevelSplit::split(const std::string& piece, bool start) const {
  const std::string text = add_prefix_space_ && piece[0] != ' ' ? " " + piece : piece;
  if (!pattern_) return {to_byte_level(text)};
  Pieces pieces = SplitPattern(*pattern_, /*keep_matches=*/true, false).split(text, start);
  for (auto& word : pieces) word = to_byte_level(word);
  return pieces;
}

Pieces WhitespaceSplit::split(const std::string& piece, bool) const {
  Pieces pieces;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t here = at;
    if (!is_white_space(next_char(piece, at))) continue;
    add_piece(pieces, piece.substr(begin, here - begin));
    begin = at;
  }
  add_piece(pieces, piece.substr(begin));
  return pieces;
}

Pieces MetaspaceSplit::split(const std::string& piece, bool start) const {
  std::string text;
  for (const char c : piece) c == ' ' ? text += mark_ : text += c;
  const bool prepend = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && start);
  if (prepend && text.rfind(mark_, 0) != 0) text = mark_ + text;
  if (!split_) return {text};
  Pieces pieces;
  std::size_t begin = 0;
  for (std::size_t at = text.find(mark_, 1); at != std::string::npos;
       at = text.find(mark_, at + mark_.size())) {
    add_piece(pieces, text.substr(begin, at - begin));
    begin = at;
  }
  add_piece(pieces, text.substr(begin));
  return pieces;
}

Pieces PreTokenizerSequence::split(const std::string& piece, bool start) const {
  Pieces pieces = {piece};
  for (const auto& step : steps_) {
    Pieces next;
    for (std::size_t i = 0; i < pieces.size(); ++i)
      for (auto& part : step->split(pieces[i], start && i == 0)) next.push_back(std::move(part));
    pieces = std::move(next);
  }
  return pieces;
}

}  // namespace cosmos::modules::text
