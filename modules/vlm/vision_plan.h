#pragma once

// What the vision tower needs to know of its grids: where patches stand, which of them meet.
//
// A grid is an image or a video: t frames (after merging pairs of frames), h x w patches each.
// Patches come frame by frame, and in a frame by merged tokens of m x m: (t, h/m, w/m, m, m).

#include <array>
#include <vector>

#include "modules/vlm/rope.h"

namespace cosmos::modules {

using Grid = std::array<int64_t, 3>;  ///< frames, rows and columns of patches
using Grids = std::vector<Grid>;

/// int64 [n, 3] -> grids. Throws Error naming `name` on another shape, sizes that are not positive,
/// or rows and columns that are no multiple of `merge`.
Grids read_grids(const Tensor& grid_thw, const char* name, int64_t merge);
/// Patches of a grid, and of all.
int64_t patches(const Grid& grid);
int64_t patches(const Grids& grids);

/// Row and column of every patch: int64 [N, 2], in the order of the patches.
Tensor patch_positions(const Grids& grids, int64_t merge);

/// Borders of the frames, each of which attends within itself.
std::vector<int64_t> frame_offsets(const Grids& grids);

/// Attention in windows of side x side merged tokens of a frame (smaller at its edges).
struct WindowPlan {
  Tensor order;                  ///< int64 [tokens]: merged tokens, window by window
  std::vector<int64_t> offsets;  ///< borders of the windows, in patches
};
WindowPlan window_plan(const Grids& grids, int64_t merge, int64_t side);

/// How a square table of learned positions is stretched over each frame, bilinear with corners on
/// corners: the patch's position is sum_j weights[j] table[rows[j]].
struct InterpolationPlan {
  Tensor rows;     ///< int64 [N, 4]
  Tensor weights;  ///< float32 [N, 4]
};
InterpolationPlan interpolation_plan(const Grids& grids, int64_t merge, int64_t table_side);

}  // namespace cosmos::modules
