#include "modules/metrics/sampson.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

namespace cosmos::modules {
namespace {

struct Point {
  int64_t x, y;
};

// The smaller eigenvalue of the gradient's moments over a 5 x 5 window.
Tensor corner_strength(const Tensor& frame) {
  const Tensor image = frame.view({1, 1, frame.size(0), frame.size(1)});
  const Tensor slope = torch::tensor({-0.5, 0.0, 0.5}, torch::kFloat64);
  const auto smooth = [](const Tensor& x) { return torch::avg_pool2d(x, 5, 1, 2); };
  const auto derivative = [&](std::vector<int64_t> kernel, std::vector<int64_t> padding) {
    const std::vector<int64_t> stride = {1, 1};
    return torch::conv2d(image, slope.view(kernel), std::optional<Tensor>(), stride, padding);
  };
  const Tensor dx = derivative({1, 1, 1, 3}, {0, 1}), dy = derivative({1, 1, 3, 1}, {1, 0});
  const Tensor xx = smooth(dx * dx), yy = smooth(dy * dy), xy = smooth(dx * dy);
  return ((xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt())[0][0];
}

std::vector<Point> corners(const Tensor& frame, const MatchOptions& options) {
  const Tensor strength = corner_strength(frame).contiguous();
  const Tensor local = torch::max_pool2d(strength.unsqueeze(0).unsqueeze(0), 9, 1, 4)[0][0];
  const Tensor kept = (strength == local).logical_and(strength > 0.01 * strength.max());
  const Tensor places = kept.nonzero();
  const Tensor order = std::get<1>(
      strength.masked_select(kept).sort(/*stable=*/true, /*dim=*/0, /*descending=*/true));
  const int64_t border = options.patch + options.reach + 1;
  std::vector<Point> points;
  for (int64_t i = 0; i < order.size(0); ++i) {
    const Tensor place = places[order[i].item<int64_t>()];
    const Point p{place[1].item<int64_t>(), place[0].item<int64_t>()};
    if (p.x < border || p.y < border || p.x >= frame.size(1) - border ||
        p.y >= frame.size(0) - border)
      continue;
    points.push_back(p);
    if (static_cast<int64_t>(points.size()) == options.points) break;
  }
  return points;
}

// Where the parabola through three values has its top, within half a step of the middle.
double top_of(double left, double middle, double right) {
  const double bend = left - 2 * middle + right;
  return bend < 0 ? std::clamp(0.5 * (left - right) / bend, -0.5, 0.5) : 0;
}

// Moves the points to mean 0 and mean distance sqrt(2); the transform as a 3 x 3 matrix.
std::pair<Tensor, Tensor> normalised(const Tensor& points) {
  const Tensor centre = points.mean(0);
  const Tensor moved = points - centre;
  const double scale = std::sqrt(2.0) / std::max(moved.norm(2, 1).mean().item<double>(), 1e-12);
  Tensor transform = torch::eye(3, torch::kFloat64) * scale;
  transform[2][2] = 1;
  transform[0][2] = -scale * centre[0];
  transform[1][2] = -scale * centre[1];
  return {moved * scale, transform};
}

Tensor homogeneous(const Tensor& points) {
  return torch::cat({points, torch::ones({points.size(0), 1}, torch::kFloat64)}, 1);
}

Matches pick(const Matches& matches, const Tensor& rows) {
  return {matches.from.index_select(0, rows), matches.to.index_select(0, rows)};
}

}  // namespace

Matches match_frames(const Tensor& from, const Tensor& to, const MatchOptions& options) {
  require(from.dim() == 2 && from.sizes() == to.sizes(), "frames to match: expected two grey ",
          "frames of one size, got ", from.sizes(), " and ", to.sizes());
  const Tensor a = from.to(torch::kFloat64).contiguous(), b = to.to(torch::kFloat64).contiguous();
  const int64_t r = options.patch, reach = options.reach, side = 2 * reach + 1;
  std::vector<double> found_from, found_to;
  for (const Point& p : corners(a, options)) {
    const auto patches = [r](const Tensor& x) {  // every patch of an area, centred, of norm 1
      Tensor rows = torch::im2col(x.unsqueeze(0).unsqueeze(0), {2 * r + 1, 2 * r + 1}, {1, 1},
                                  {0, 0}, {1, 1})[0]
                        .t();
      rows = rows - rows.mean(1, /*keepdim=*/true);
      return rows / rows.norm(2, 1, /*keepdim=*/true).clamp_min(1e-9);
    };
    const auto area = [&](const Tensor& x, int64_t around) {
      return x.slice(0, p.y - around, p.y + around + 1).slice(1, p.x - around, p.x + around + 1);
    };
    const Tensor score =
        torch::matmul(patches(area(b, r + reach)), patches(area(a, r))[0]).view({side, side});
    const int64_t best = score.argmax().item<int64_t>(), y = best / side, x = best % side;
    const auto at = [&](int64_t row, int64_t column) { return score[row][column].item<double>(); };
    if (at(y, x) < options.similar || y == 0 || x == 0 || y == side - 1 || x == side - 1) continue;
    found_from.insert(found_from.end(), {static_cast<double>(p.x), static_cast<double>(p.y)});
    found_to.push_back(static_cast<double>(p.x + x - reach) +
                       top_of(at(y, x - 1), at(y, x), at(y, x + 1)));
    found_to.push_back(static_cast<double>(p.y + y - reach) +
                       top_of(at(y - 1, x), at(y, x), at(y + 1, x)));
  }
  const auto points = [](const std::vector<double>& values) {
    return torch::tensor(values, torch::kFloat64)
        .view({static_cast<int64_t>(values.size()) / 2, 2});
  };
  return {points(found_from), points(found_to)};
}

Tensor fundamental_matrix(const Matches& matches) {
  require(matches.from.size(0) >= 8, "a fundamental matrix needs 8 matches, got ",
          matches.from.size(0));
  const auto [p, from_norm] = normalised(matches.from);
  const auto [q, to_norm] = normalised(matches.to);
  const Tensor rows = torch::einsum("ni,nj->nij", {homogeneous(q), homogeneous(p)}).flatten(1);
  // The last right singular vector, of a square matrix even for 8 matches.
  const Tensor solution =
      std::get<1>(torch::linalg_eigh(torch::matmul(rows.t(), rows))).select(1, 0).view({3, 3});
  const auto [u, s, v] = torch::linalg_svd(solution);
  Tensor singular = s.clone();
  singular[2] = 0;
  const Tensor rank2 = torch::matmul(u * singular, v);
  const Tensor f = torch::matmul(to_norm.t(), torch::matmul(rank2, from_norm));
  return f / f.norm();
}

Tensor sampson_distance(const Matches& matches, const Tensor& fundamental) {
  const Tensor p = homogeneous(matches.from), q = homogeneous(matches.to);
  const Tensor fp = torch::matmul(p, fundamental.t()), fq = torch::matmul(q, fundamental);
  const Tensor residual = (q * fp).sum(1).abs();
  const Tensor slope = fp.slice(1, 0, 2).square().sum(1) + fq.slice(1, 0, 2).square().sum(1);
  return residual / slope.clamp_min(1e-24).sqrt();
}

double sampson_error(const Matches& matches, uint64_t seed, int64_t rounds) {
  const int64_t count = matches.from.size(0);
  if (count < 16) return std::numeric_limits<double>::quiet_NaN();
  std::mt19937_64 random(seed);
  std::vector<int64_t> order(static_cast<std::size_t>(count));
  for (int64_t i = 0; i < count; ++i) order[static_cast<std::size_t>(i)] = i;
  Tensor best;
  int64_t most = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < 8; ++i)
      std::swap(order[i], order[i + random() % (order.size() - i)]);
    const Tensor sample = torch::tensor(std::vector<int64_t>(order.begin(), order.begin() + 8));
    const Tensor inliers =
        sampson_distance(matches, fundamental_matrix(pick(matches, sample))) < 1.0;
    const int64_t agree = inliers.sum().item<int64_t>();
    if (agree > most) std::tie(best, most) = std::pair(inliers.nonzero().squeeze(1), agree);
  }
  if (most < 8) return std::numeric_limits<double>::quiet_NaN();
  return sampson_distance(matches, fundamental_matrix(pick(matches, best))).mean().item<double>();
}

}  // namespace cosmos::modules
