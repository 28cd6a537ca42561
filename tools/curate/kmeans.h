#pragma once

// Semantic deduplication (SemDeDup, Abbas et al. 2023): clusters, and near neighbours within them.

#include "modules/core/tensor.h"

namespace cosmos::curate {

struct Clusters {
  Tensor centroids;   ///< [K, D]
  Tensor assignment;  ///< int64 [N]: of each row its centroid
};

/// Lloyd's iterations from at most `clusters` centroids, chosen farthest first: row 0, then each
/// time the row farthest from those chosen (the first of several), while its squared distance is
/// above `apart`: rows that are alike must not be clusters of their own. No random numbers: the
/// same rows give the same clusters. Ends when no row changes its cluster, or after `iterations`.
/// rows: float32 [N, D]
Clusters kmeans(const Tensor& rows, int64_t clusters, int64_t iterations, double apart);

struct Neighbour {
  int64_t cluster = 0;
  int64_t nearest =
      -1;            ///< earlier row of the cluster with the largest cosine; -1: none is earlier
  float cosine = 0;  ///< to it
};

/// Of each row its nearest earlier one in its cluster, where earlier is farther from the centroid
/// (by cosine distance; rows alike keep their order): cosmos-curate's order, which keeps the
/// unusual.  rows: float32 [N, D] of length 1
std::vector<Neighbour> earlier_neighbours(const Tensor& rows, const Clusters& clusters);

}  // namespace cosmos::curate
