#pragma once

// Whether consecutive frames could show one rigid scene: points matched between two frames, the
// fundamental matrix that most of them agree with, and how far each is from it.

#include <cstdint>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// Points in pixels (x, y), row i of `from` matched to row i of `to`: [N, 2] float64.
struct Matches {
  Tensor from, to;
};

struct MatchOptions {
  int64_t points = 300;  ///< at most; corners (Shi and Tomasi, 1994), 8 pixels apart
  int64_t patch = 4;     ///< half size of what is compared
  int64_t reach = 12;    ///< how far a point may have moved
  double similar = 0.8;  ///< least normalised cross-correlation
};

/// frame: [H, W], grey in [0, 1]. Parts of a pixel come from a parabola through the neighbours.
Matches match_frames(const Tensor& from, const Tensor& to, const MatchOptions& options = {});

/// The normalised eight-point algorithm (Hartley, 1997): F of rank 2 with to^T F from = 0 in the
/// least squares sense. 8 matches or more.
Tensor fundamental_matrix(const Matches& matches);

/// Sampson distance of every match to F, in pixels: |q^T F p| over the root of the squares of the
/// first two entries of F p and F^T q. [N]
Tensor sampson_distance(const Matches& matches, const Tensor& fundamental);

/// Mean Sampson distance under the F of RANSAC (`rounds` samples of 8, inliers within a pixel,
/// drawn from `seed`, F fitted to all inliers again). NaN with fewer than 16 matches.
double sampson_error(const Matches& matches, uint64_t seed, int64_t rounds = 200);

}  // namespace cosmos::modules
