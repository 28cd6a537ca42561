#pragma once

// A subword model: words of the pre-tokenizer in, token ids out.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace cosmos::modules::text {

class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  /// Appends the ids of `word`.
  virtual void encode(const std::string& word, std::vector<int64_t>& ids) const = 0;
  /// Tokens by id; "" where an id is free.
  const std::vector<std::string>& tokens() const { return tokens_; }
  const std::unordered_map<std::string, int64_t>& ids() const { return ids_; }

 protected:
  /// Throws Error when an id is negative or beyond `kMaxTokens`.
  void add_token(const std::string& token, int64_t id, const std::string& where);

  static constexpr int64_t kMaxTokens = 1 << 24;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int64_t> ids_;
};

/// Byte-pair encoding: a word starts as its characters; the pair of neighbours that comes first in
/// the list of merges is joined, the leftmost where several are equal, until no pair is listed.
class Bpe : public SubwordModel {
 public:
  struct Options {
    std::string unk_token{};     ///< "": characters without a token are dropped
    bool fuse_unk = false;       ///< neighbouring unknown characters are one unknown token
    bool byte_fallback = false;  ///< unknown characters as <0x0A>
    bool ignore_merges = false;  ///< a word that is a token is that token
  };
  using Vocab = std::vector<std::pair<std::string, int64_t>>;
  using Merges = std::vector<std::pair<std::string, std::string>>;

  /// Throws Error naming a merge whose parts or result are not tokens; `where` names the file.
  Bpe(const Vocab& vocab, const Merges& merges, const Options& options, const std::string& where);
  void encode(const std::string& word, std::vector<int64_t>& ids) const override;

 private:
  struct Merge {
    int64_t rank, id;
  };
  const Merge* find_merge(int64_t left, int64_t right) const;
  std::vector<int64_t> symbols(const std::string& word) const;

  Options options_;
  int64_t unk_id_ = -1;
  std::unordered_map<uint64_t, Merge> merges_;
};

/// Unigram language model (SentencePiece; Kudo 2018): the segmentation of the largest sum of
/// scores. Neighbouring unknown characters are one unknown token.
class Unigram : public SubwordModel {
 public:
  using Pieces = std::vector<std::pair<std::string, double>>;

  /// Throws Error when there are no pieces or `unk_id` is none of them.
  Unigram(const Pieces& pieces, int64_t unk_id, const std::string& where);
  void encode(const std::string& word, std::vector<int64_t>& ids) const override;

 private:
  std::vector<double> scores_;
  std::vector<int64_t> sorted_;  ///< ids in the order of their pieces' bytes
  double unk_score_ = 0;
  int64_t unk_id_ = 0;
};

}  // namespace cosmos::modules::text
