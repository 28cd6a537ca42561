#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "modules/text/subword.h"
#include "modules/text/unicode.h"
#include "ops/core/error.h"

namespace cosmos::modules::text {
namespace {
constexpr double kUnknownPenalty = 10;  // below the lowest score of a piece
}

Unigram::Unigram(const Pieces& pieces, int64_t unk_id, const std::string& where) : unk_id_(unk_id) {
  require(unk_id >= 0 && unk_id < static_cast<int64_t>(pieces.size()), where,
          ": the unknown piece: expected an id below ", pieces.size(), ", got ", unk_id);
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto& [piece, score] : pieces) {
    require(std::isfinite(score), where, ": the score of \"", piece, "\" is not a finite number");
    add_token(piece, static_cast<int64_t>(scores_.size()), where);
    scores_.push_back(score);
    lowest = std::min(lowest, score);
  }
  unk_score_ = lowest - kUnknownPenalty;
  for (const auto& [piece, id] : ids_)
    if (!piece.empty()) sorted_.push_back(id);
  std::sort(sorted_.begin(), sorted_.end(),
            [this](int64_t a, int64_t b) { return tokens_[a] < tokens_[b]; });
}

void Unigram::encode(const std::string& word, std::vector<int64_t>& ids) const {
  // Viterbi: the best segmentation of each prefix.
  struct Node {
    double score = 0;
    int64_t id = -1;
    std::size_t begin = 0;
  };
  std::vector<Node> best(word.size() + 1);
  const auto offer = [&](std::size_t begin, std::size_t end, int64_t id, double score) {
    const double sum = best[begin].score + score;
    if (best[end].id < 0 || sum > best[end].score) best[end] = {sum, id, begin};
  };
  for (std::size_t begin = 0; begin < word.size();) {
    const std::size_t length = sequence_length(word[begin]);
    bool single = false;
    // [low, high): pieces that start with word[begin, end).
    auto low = sorted_.begin(), high = sorted_.end();
    for (std::size_t end = begin; end < word.size() && low != high; ++end) {
      const std::size_t depth = end - begin;
      const auto byte = static_cast<unsigned char>(word[end]);
      const auto at = [&](int64_t id) {
        return depth < tokens_[id].size() ? static_cast<unsigned char>(tokens_[id][depth]) : -1;
      };
      low = std::partition_point(low, high, [&](int64_t id) { return at(id) < byte; });
      high = std::partition_point(low, high, [&](int64_t id) { return at(id) == byte; });
      if (low == high || tokens_[*low].size() != depth + 1) continue;
      offer(begin, end + 1, *low, scores_[*low]);
      single = single || depth + 1 == length;
    }
    if (!single) offer(begin, begin + length, unk_id_, unk_score_);
    begin += length;
  }
  std::vector<int64_t> backwards;
  for (std::size_t end = word.size(); end > 0; end = best[end].begin)
    if (best[end].id != unk_id_ || backwards.empty() || backwards.back() != unk_id_)
      backwards.push_back(best[end].id);
  ids.insert(ids.end(), backwards.rbegin(), backwards.rend());
}

}  // namespace cosmos::modules::text
