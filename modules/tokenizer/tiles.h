#pragma once

// Large frames as overlapping tiles whose seams are blended linearly.

#include <array>
#include <functional>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// Height and width of a tile and the distance between tiles, in pixels of one side of the model.
struct TileGrid {
  std::array<int64_t, 2> tile{};
  std::array<int64_t, 2> stride{};
};

/// Number of tiles of an H x W frame.
int64_t tile_count(const TileGrid& grid, int64_t height, int64_t width);

/// Calls fn(tile, index) for each tile of x: [B, C, T, H, W] and joins what it returns: rows
/// and columns where two tiles overlap go linearly from the upper or left one to the other. `in`
/// and `out` are the same grid before and after fn. The same order of blends as diffusers'
/// tiled_encode.
Tensor run_tiled(const Tensor& x, const TileGrid& in, const TileGrid& out,
                 const std::function<Tensor(const Tensor& tile, int64_t index)>& fn);

}  // namespace cosmos::modules
