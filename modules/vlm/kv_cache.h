#pragma once

// Keys and values of the tokens that a generation has seen. Rows of the batch may hold different
// numbers of tokens; each fills its row from the left, so that nothing is ever moved.

#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

class KvCache {
 public:
  /// `rows` sequences; `capacity` tokens a row to begin with (it grows when they are full).
  KvCache(int64_t layers, int64_t rows, int64_t capacity);

  /// Attention of one layer. q: [B, L, heads, d], k, v: [B, L, kv_heads, d] -> [B, L, heads, d].
  /// With `offsets` (B = 1): the first tokens of row r are [offsets[r], offsets[r + 1]) of the
  /// packed row. Without (L = 1): the next token of every row.
  Tensor attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                const std::vector<int64_t>& offsets);

  /// Tokens of each row. Call advance() when all layers have seen a call's tokens.
  const std::vector<int64_t>& lengths() const { return lengths_; }
  void advance(const std::vector<int64_t>& offsets);

  /// Keeps the rows `rows` (in that order), which are still being written.
  void keep_rows(const Tensor& rows);

 private:
  struct Layer {
    Tensor keys, values;  ///< [rows, kv_heads, capacity, d]
  };
  void reserve(Layer& layer, const Tensor& like, int64_t tokens);
  Tensor fill(Layer& layer, const Tensor& q, const Tensor& k, const Tensor& v,
              const std::vector<int64_t>& offsets);
  Tensor extend(Layer& layer, const Tensor& q, const Tensor& k, const Tensor& v);

  std::vector<Layer> layers_;
  std::vector<int64_t> lengths_;
  int64_t capacity_;
};

}  // namespace cosmos::modules
