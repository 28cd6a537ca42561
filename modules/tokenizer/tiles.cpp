#include "modules/tokenizer/tiles.h"

#include <algorithm>

namespace cosmos::modules {
namespace {

constexpr int64_t kHeight = 3, kWidth = 4;

// `b` with its first `extent` rows (or columns) going over from the last ones of `a`.
Tensor blend(const Tensor& a, const Tensor& b, int64_t extent, int64_t dim) {
  extent = std::min({a.size(dim), b.size(dim), extent});
  if (extent <= 0) return b;
  std::vector<int64_t> shape(5, 1);
  shape[dim] = extent;
  const Tensor weight =
      (torch::arange(extent, b.options()) / static_cast<double>(extent)).view(shape);
  const Tensor seam = a.narrow(dim, a.size(dim) - extent, extent) * (1 - weight) +
                      b.narrow(dim, 0, extent) * weight;
  return torch::cat({seam, b.narrow(dim, extent, b.size(dim) - extent)}, dim);
}

Tensor crop(const Tensor& x, int64_t dim, int64_t size) {
  return x.narrow(dim, 0, std::min(size, x.size(dim)));
}

}  // namespace

int64_t tile_count(const TileGrid& grid, int64_t height, int64_t width) {
  return ((height + grid.stride[0] - 1) / grid.stride[0]) *
         ((width + grid.stride[1] - 1) / grid.stride[1]);
}

Tensor run_tiled(const Tensor& x, const TileGrid& in, const TileGrid& out,
                 const std::function<Tensor(const Tensor& tile, int64_t index)>& fn) {
  const int64_t height = x.size(kHeight), width = x.size(kWidth);
  int64_t index = 0;
  Tensors above, rows;
  for (int64_t top = 0; top < height; top += in.stride[0]) {
    Tensors row, kept;
    const Tensor band = x.narrow(kHeight, top, std::min(in.tile[0], height - top));
    for (int64_t left = 0; left < width; left += in.stride[1]) {
      const Tensor part = band.narrow(kWidth, left, std::min(in.tile[1], width - left));
      Tensor tile = fn(part, index++);
      if (!above.empty())
        tile = blend(above[row.size()], tile, out.tile[0] - out.stride[0], kHeight);
      if (!row.empty()) tile = blend(row.back(), tile, out.tile[1] - out.stride[1], kWidth);
      row.push_back(tile);
      kept.push_back(crop(crop(tile, kHeight, out.stride[0]), kWidth, out.stride[1]));
    }
    rows.push_back(torch::cat(kept, kWidth));
    above = std::move(row);
  }
  return torch::cat(rows, kHeight);
}

}  // namespace cosmos::modules
