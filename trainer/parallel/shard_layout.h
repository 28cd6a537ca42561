#pragma once

// Which rows of a tensor a rank holds when it is split on dimension 0, as FSDP2 splits it: chunks
// of ceil(rows / size) rows; the last ones may be shorter or empty.

#include <algorithm>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

struct RowRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

inline RowRange shard_rows(int64_t rows, int64_t rank, int64_t ranks) {
  const int64_t chunk = (rows + ranks - 1) / ranks;
  return {std::min(rank * chunk, rows), std::min((rank + 1) * chunk, rows)};
}

/// The rank's rows of `full`, a view.
inline Tensor shard_of(const Tensor& full, int64_t rank, int64_t ranks) {
  const RowRange rows = shard_rows(full.size(0), rank, ranks);
  return full.narrow(0, rows.begin, rows.size());
}

}  // namespace cosmos::trainer
