#include "tools/curate/kmeans.h"

namespace cosmos::curate {
namespace {

constexpr int64_t kTile = 1024;  // rows compared at once

Tensor squared_distances(const Tensor& rows, const Tensor& centroids) {
  return rows.square().sum(1, true) - 2 * torch::mm(rows, centroids.t()) +
         centroids.square().sum(1).unsqueeze(0);
}

Tensor farthest_first(const Tensor& rows, int64_t count, double apart) {
  std::vector<int64_t> chosen = {0};
  Tensor nearest = (rows - rows[0]).square().sum(1);
  while (static_cast<int64_t>(chosen.size()) < count) {
    const auto next = nearest.argmax().item<int64_t>();
    if (!(nearest[next].item<double>() > apart)) break;
    chosen.push_back(next);
    nearest = torch::minimum(nearest, (rows - rows[chosen.back()]).square().sum(1));
  }
  return rows.index_select(0, torch::tensor(chosen));
}

/// The neighbours of one cluster's rows, written to `found`.
void find_in_cluster(const Tensor& rows, const Tensor& centroid, const Tensor& members,
                     int64_t cluster, std::vector<Neighbour>& found) {
  const Tensor mine = rows.index_select(0, members);
  const Tensor closeness = torch::mv(mine, centroid / centroid.norm().clamp_min(1e-12));
  const Tensor order = closeness.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
  const Tensor sorted = mine.index_select(0, order), ids = members.index_select(0, order);
  const int64_t* id = ids.data_ptr<int64_t>();
  const int64_t count = sorted.size(0);
  for (int64_t first = 0; first < count; first += kTile) {
    const int64_t end = std::min(count, first + kTile);
    Tensor cosines = torch::mm(sorted.slice(0, first, end), sorted.slice(0, 0, end).t());
    // Row i sees columns below first + i.
    const Tensor later = torch::ones({end - first, end}, torch::kBool).triu(first);
    cosines.masked_fill_(later, -2);
    const auto [best, at] = cosines.max(1);
    for (int64_t i = first; i < end; ++i) {
      Neighbour& n = found[static_cast<std::size_t>(id[i])];
      n.cluster = cluster;
      if (i == 0) continue;
      n.cosine = best[i - first].item<float>();
      n.nearest = id[at[i - first].item<int64_t>()];
    }
  }
}

}  // namespace

Clusters kmeans(const Tensor& rows, int64_t clusters, int64_t iterations, double apart) {
  const auto [N, D] = dims<2>(rows, "rows");
  require(N >= 1 && clusters >= 1, "k-means: expected rows and clusters");
  Clusters result{.centroids = farthest_first(rows, std::min(clusters, N), apart),
                  .assignment = {}};
  const int64_t K = result.centroids.size(0);
  for (int64_t i = 0; i < iterations; ++i) {
    const Tensor assignment = squared_distances(rows, result.centroids).argmin(1);
    if (result.assignment.defined() && assignment.equal(result.assignment)) break;
    result.assignment = assignment;
    const Tensor counts = torch::bincount(assignment, {}, K).to(torch::kFloat32).unsqueeze(1);
    const Tensor sums = torch::zeros({K, D}).index_add_(0, assignment, rows);
    result.centroids = torch::where(counts > 0, sums / counts.clamp_min(1), result.centroids);
  }
  return result;
}

std::vector<Neighbour> earlier_neighbours(const Tensor& rows, const Clusters& clusters) {
  std::vector<Neighbour> found(static_cast<std::size_t>(rows.size(0)));
  for (int64_t k = 0; k < clusters.centroids.size(0); ++k) {
    const Tensor members = clusters.assignment.eq(k).nonzero().flatten();
    if (members.numel() > 0) find_in_cluster(rows, clusters.centroids[k], members, k, found);
  }
  return found;
}

}  // namespace cosmos::curate
