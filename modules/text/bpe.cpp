#include <cstdio>
#include <queue>

#include "modules/text/subword.h"
#include "modules/text/unicode.h"
#include "ops/core/error.h"

namespace cosmos::modules::text {

void SubwordModel::add_token(const std::string& token, int64_t id, const std::string& where) {
  require(id >= 0 && id < kMaxTokens, where, ": token \"", token, "\": expected an id from 0 to ",
          kMaxTokens - 1, ", got ", id);
  if (id >= static_cast<int64_t>(tokens_.size())) tokens_.resize(id + 1);
  tokens_[id] = token;
  ids_[token] = id;
}

Bpe::Bpe(const Vocab& vocab, const Merges& merges, const Options& options, const std::string& where)
    : options_(options) {
  ids_.reserve(vocab.size());
  for (const auto& [token, id] : vocab) add_token(token, id, where);
  merges_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const auto a = ids_.find(left), b = ids_.find(right), joined = ids_.find(left + right);
    require(a != ids_.end() && b != ids_.end() && joined != ids_.end(), where, ": merge ", rank,
            " (\"", left, "\" and \"", right, "\") names a token that is not in the vocabulary");
    merges_[static_cast<uint64_t>(a->second) << 32 | static_cast<uint64_t>(b->second)] = {
        static_cast<int64_t>(rank), joined->second};
  }
  if (options.unk_token.empty()) return;
  const auto unk = ids_.find(options.unk_token);
  require(unk != ids_.end(), where, ": unk_token \"", options.unk_token,
          "\" is not in the vocabulary");
  unk_id_ = unk->second;
}

const Bpe::Merge* Bpe::find_merge(int64_t left, int64_t right) const {
  const auto found = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int64_t> Bpe::symbols(const std::string& word) const {
  std::vector<int64_t> out;
  bool unknown = false;  // the last symbol is an unknown token that may grow
  for (std::size_t at = 0; at < word.size();) {
    const std::string c = word.substr(at, sequence_length(word[at]));
    at += c.size();
    if (const auto found = ids_.find(c); found != ids_.end()) {
      out.push_back(found->second);
      unknown = false;
      continue;
    }
    if (options_.byte_fallback) {
      std::vector<int64_t> bytes;
      for (const char byte : c) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned char>(byte));
        if (const auto found = ids_.find(name); found != ids_.end()) bytes.push_back(found->second);
      }
      if (bytes.size() == c.size()) {
        out.insert(out.end(), bytes.begin(), bytes.end());
        unknown = false;
        continue;
      }
    }
    if (unk_id_ < 0) continue;
    if (!unknown || !options_.fuse_unk) out.push_back(unk_id_);
    unknown = true;
  }
  return out;
}

void Bpe::encode(const std::string& word, std::vector<int64_t>& ids) const {
  if (options_.ignore_merges) {
    if (const auto whole = ids_.find(word); whole != ids_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  // A linked list of symbols and a queue of possible merges: n log n for a word of n characters.
  struct Symbol {
    int64_t id;
    int32_t before, after;  // -1: none
  };
  struct Candidate {
    int64_t rank, id;
    int32_t at;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::vector<Symbol> list;
  for (const int64_t id : symbols(word)) {
    const auto at = static_cast<int32_t>(list.size());
    list.push_back({id, at - 1, at + 1});
  }
  if (list.empty()) return;
  list.back().after = -1;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](int32_t at) {
    if (at < 0 || list[at].after < 0) return;
    if (const Merge* merge = find_merge(list[at].id, list[list[at].after].id))
      queue.push({merge->rank, merge->id, at});
  };
  for (std::size_t i = 0; i < list.size(); ++i) consider(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = list[best.at];
    if (left.id < 0 || left.after < 0) continue;  // joined already
    const Merge* merge = find_merge(left.id, list[left.after].id);
    if (!merge || merge->id != best.id) continue;
    const int32_t gone = left.after;
    left.id = best.id;
    left.after = list[gone].after;
    if (left.after >= 0) list[left.after].before = best.at;
    list[gone].id = -1;
    consider(left.before);
    consider(best.at);
  }
  for (const Symbol& symbol : list)
    if (symbol.id >= 0) ids.push_back(symbol.id);
}

}  // namespace cosmos::modules::text
