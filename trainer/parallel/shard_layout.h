#pragma once

// What of a tensor a rank holds: a box of it. Which rows of a tensor a rank holds when it is split
// on dimension 0, as FSDP2 splits it: chunks of ceil(rows / size) rows; the last ones may be
// shorter or empty.

#include <algorithm>
#include <c10/util/accumulate.h>
#include <vector>

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

/// A box of a tensor: where it begins and how far it goes, by dimension.
struct Region {
  std::vector<int64_t> offset, size;

  int64_t numel() const { return c10::multiply_integers(size); }
};

inline Region whole_region(at::IntArrayRef sizes) {
  return {.offset = std::vector<int64_t>(sizes.size(), 0), .size = sizes.vec()};
}

inline Region rows_region(at::IntArrayRef sizes, RowRange rows) {
  Region region = whole_region(sizes);
  region.offset[0] = rows.begin;
  region.size[0] = rows.size();
  return region;
}

/// That box of `whole`, a view.
inline Tensor region_of(Tensor whole, const Region& region) {
  for (std::size_t d = 0; d < region.size.size(); ++d)
    whole = whole.narrow(static_cast<int64_t>(d), region.offset[d], region.size[d]);
  return whole;
}

/// The ranks that hold the same region of a tensor: this one's number among them, and how many.
struct Copies {
  int64_t index = 0, count = 1;
};

/// The rank's rows of `full`, a view.
inline Tensor shard_of(const Tensor& full, int64_t rank, int64_t ranks) {
  const RowRange rows = shard_rows(full.size(0), rank, ranks);
  return full.narrow(0, rows.begin, rows.size());
}

}  // namespace cosmos::trainer
