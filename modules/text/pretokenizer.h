#pragma once

// Cuts text into the words that the subword model sees.

#include <memory>
#include <string>
#include <vector>

#include "modules/text/regex.h"

namespace cosmos::modules::text {

/// One step: a piece of text becomes pieces. `start`: the piece is the beginning of the text.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual std::vector<std::string> split(const std::string& piece, bool start) const = 0;
};

/// Matches of a pattern become pieces, and what lies between them (`keep_matches`, "Isolated") or
/// only what lies between them ("Removed"); `invert` exchanges the two.
class SplitPattern : public PreTokenizer {
 public:
  SplitPattern(Regex regex, bool keep_matches, bool invert)
      : regex_(std::move(regex)), keep_matches_(keep_matches), invert_(invert) {}
  std::vector<std::string> split(const std::string& piece, bool start) const override;

 private:
  Regex regex_;
  bool keep_matches_, invert_;
};

/// GPT-2's: words of its pattern (with `use_pattern`), each byte written as one of 256 printable
/// characters. `add_prefix_space`: a piece that does not start with a space gets one.
class ByteLevelSplit : public PreTokenizer {
 public:
  ByteLevelSplit(bool add_prefix_space, bool use_pattern);
  std::vector<std::string> split(const std::string& piece, bool start) const override;

 private:
  bool add_prefix_space_;
  std::shared_ptr<const Regex> pattern_;
};

/// Runs of White_Space are dropped.
class WhitespaceSplit : public PreTokenizer {
 public:
  std::vector<std::string> split(const std::string& piece, bool start) const override;
};

/// SentencePiece's: spaces become `mark` (U+2581), one is put in front, and each mark begins a new
/// piece.
class MetaspaceSplit : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  MetaspaceSplit(std::string mark, Prepend prepend, bool split)
      : mark_(std::move(mark)), prepend_(prepend), split_(split) {}
  std::vector<std::string> split(const std::string& piece, bool start) const override;

 private:
  std::string mark_;
  Prepend prepend_;
  bool split_;
};

/// One after the other, each on every piece of the one before.
class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::shared_ptr<const PreTokenizer>> steps)
      : steps_(std::move(steps)) {}
  std::vector<std::string> split(const std::string& piece, bool start) const override;

 private:
  std::vector<std::shared_ptr<const PreTokenizer>> steps_;
};

/// U+2581, a space in SentencePiece.
inline constexpr const char* kMetaspace = "\xE2\x96\x81";

/// Bytes written as byte-level models write them.
std::string to_byte_level(const std::string& bytes);
/// The bytes of a byte-level token; a token with other characters stands for itself.
std::string from_byte_level(const std::string& token);

}  // namespace cosmos::modules::text
