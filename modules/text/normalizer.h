#pragma once

// What happens to text before it is split: Unicode normalisation, or SentencePiece's character map.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "modules/text/unicode.h"

namespace cosmos::modules::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string text) const = 0;
};

/// NFC, NFD, NFKC, NFKD.
class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(Form form) : form_(form) {}
  std::string apply(std::string text) const override;

 private:
  Form form_;
};

/// `precompiled_charsmap` of a SentencePiece model: u32 size of a double-array trie, the trie (u32
/// units), then replacements, each ended by a zero byte; a key's value is where its replacement
/// begins. As the reference applies it: a grapheme of fewer than 6 bytes of which the trie knows a
/// prefix is replaced as a whole by the shortest such prefix's text; else character by character.
class CharsMapNormalizer : public Normalizer {
 public:
  /// Throws Error when `charsmap` is not well formed; `where` names it.
  CharsMapNormalizer(const std::string& charsmap, const std::string& where);
  std::string apply(std::string text) const override;

 private:
  /// Appends the replacement of the shortest known prefix of `chunk`; false: there is none.
  bool replace(std::string_view chunk, std::string& out) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

/// One after the other.
class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::shared_ptr<const Normalizer>> steps)
      : steps_(std::move(steps)) {}
  std::string apply(std::string text) const override;

 private:
  std::vector<std::shared_ptr<const Normalizer>> steps_;
};

}  // namespace cosmos::modules::text
