#pragma once

// Text to token ids and back, equal token for token to the fast tokenizers of transformers.
//
//   auto tokenizer = TextTokenizer::load("Qwen2.5-VL-7B-Instruct");
//   std::vector<int64_t> ids = tokenizer->encode("a robot arm");
//   std::string text = tokenizer->decode(ids);
//   TokenBatch batch = tokenizer->encode_batch(prompts, {.length = 512});
//
// A folder holds tokenizer.json, or vocab.json + merges.txt, or spiece.model; tokenizer_config.json
// names the special tokens. Objects do not change once made: several threads may use one.

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/tensor.h"
#include "modules/text/added_tokens.h"
#include "modules/text/normalizer.h"
#include "modules/text/pretokenizer.h"
#include "modules/text/subword.h"

namespace cosmos::modules {

/// What a tokenizer is made of; tokenizer_file.h reads it from files.
struct TokenizerParts {
  enum class Decoder { kByteLevel, kMetaspace };
  std::shared_ptr<const text::Normalizer> normalizer = nullptr;       ///< null: none
  std::shared_ptr<const text::PreTokenizer> pre_tokenizer = nullptr;  ///< null: none
  std::shared_ptr<const text::SubwordModel> model = nullptr;
  std::vector<text::AddedToken> added{};
  std::vector<int64_t> prefix{}, suffix{};  ///< put around a text: begin and end of sequence
  Decoder decoder = Decoder::kByteLevel;
  /// eos_token, pad_token, bos_token, unk_token, as tokenizer_config.json names them.
  std::map<std::string, std::string> special_names{};
  bool pad_left = false;  ///< padding_side
};

struct TokenBatch {
  Tensor input_ids;       ///< int64 [B, S]
  Tensor attention_mask;  ///< int64 [B, S]: 1 for tokens, 0 for padding
};

struct BatchOptions {
  /// Of every row, by padding and cutting; none: that of the longest text.
  std::optional<int64_t> length = std::nullopt;
  bool special_tokens = true;  ///< prefix and suffix; they are kept when a text is cut
  std::optional<bool> pad_left = std::nullopt;  ///< none: as the tokenizer's config says
};

class TextTokenizer {
 public:
  /// Throws Error when files are missing or broken, or ask for a kind that is not built in.
  static std::shared_ptr<const TextTokenizer> load(const std::filesystem::path& dir);
  explicit TextTokenizer(TokenizerParts parts);

  /// Special tokens written in the text become their ids. `special_tokens`: put the prefix and the
  /// suffix around it. Throws Error when the text is not UTF-8.
  std::vector<int64_t> encode(const std::string& text, bool special_tokens = true) const;
  /// Broken UTF-8 becomes U+FFFD. Ids without a token stand for nothing, as in transformers: a
  /// model's vocabulary is often larger, and it may write them. Throws Error on a negative id.
  std::string decode(const std::vector<int64_t>& ids, bool skip_special = false) const;
  /// Padding is pad_token. Throws Error when it is needed and there is none.
  TokenBatch encode_batch(const std::vector<std::string>& texts,
                          const BatchOptions& options = {}) const;

  /// One more than the largest id. (A model's vocab_size may be larger.)
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  /// As the files spell it: byte-level tokens in their 256 characters. Throws Error on a free id.
  const std::string& token(int64_t id) const;
  std::optional<int64_t> find(const std::string& token) const;
  /// Throws Error naming the token when there is none.
  int64_t id(const std::string& token) const;
  bool is_special(int64_t id) const;
  /// The id of "eos_token", "pad_token", "bos_token" or "unk_token".
  std::optional<int64_t> special(const std::string& name) const;

  /// Bytes of a token within a text; of the first token without the space that Metaspace prepends.
  /// None for an id without a token.
  std::string token_bytes(int64_t id, bool first) const;

 private:
  void encode_words(const std::string& text, bool start, std::vector<int64_t>& ids) const;

  TokenizerParts parts_;
  text::AddedTokenFinder raw_, normalized_;
  std::vector<std::string> tokens_;  ///< by id
  std::vector<bool> special_;        ///< by id
  std::unordered_map<std::string, int64_t> ids_;
};

/// Decodes tokens as they are generated: what push() returns adds up to decode()'s text, characters
/// of several tokens come out with their last one.
class TokenStream {
 public:
  explicit TokenStream(std::shared_ptr<const TextTokenizer> tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}
  std::string push(int64_t id);
  /// What is left at the end: broken characters as U+FFFD.
  std::string finish();

 private:
  std::shared_ptr<const TextTokenizer> tokenizer_;
  bool skip_special_, first_ = true;
  std::string held_;
};

}  // namespace cosmos::modules
