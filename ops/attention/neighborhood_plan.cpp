// Cuts each axis into tiles of queries with the range of keys that any of them sees; a tile of the
// grid is one tile of each axis. Tiles of equal form (sizes and mask) become one group, so that
// attention runs over a few large batches.

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <map>

#include "ops/attention/attention.h"
#include "ops/core/error.h"

namespace cosmos::ops {
namespace {

constexpr const char* kAxisNames[] = {"time", "height", "width"};

void check_axis(const NeighborhoodAxis& a, const char* name) {
  require(a.length >= 1 && a.window >= 1 && a.stride >= 1 && a.dilation >= 1 &&
              a.stride <= a.window && a.window * a.dilation <= a.length,
          "neighborhood_attention: ", name, ": expected 1 <= stride <= window and window * ",
          "dilation <= length, got length ", a.length, ", window ", a.window, ", stride ", a.stride,
          ", dilation ", a.dilation);
}

/// Queries that are taken together, as a multiple of the stride. A long stride has no mask when it
/// is a tile by itself; a short one is not worth a tile.
int64_t tile_length(const NeighborhoodAxis& a, int64_t n) {
  if (a.window == n && !a.causal) return n;
  const int64_t wanted = std::max(a.stride, a.stride * 4 >= a.window ? 0 : a.window / 2);
  return (wanted + a.stride - 1) / a.stride * a.stride;
}

struct AxisTile {
  std::vector<int64_t> queries, keys;  ///< positions along the axis
  std::vector<bool> mask;              ///< [queries, keys]
  bool masked = false;                 ///< some are false
  auto form() const { return std::tuple(queries.size(), keys.size(), mask); }
};

/// Keys [begin, end) that query i sees, among the n tokens of its residue.
struct Window {
  int64_t begin, end;
};

Window window_of(const NeighborhoodAxis& a, int64_t i, int64_t n) {
  const int64_t group = i - i % a.stride;
  if (a.causal) {
    const int64_t last = std::min(group + a.stride, n);
    return {std::max<int64_t>(last - a.window, 0), i + 1};
  }
  const int64_t middle = std::min(group + a.stride / 2, n - 1);
  const int64_t begin = std::min(std::max<int64_t>(middle - a.window / 2, 0), n - a.window);
  return {begin, begin + a.window};
}

/// Queries [first, last) of the n tokens of `residue`.
AxisTile make_tile(const NeighborhoodAxis& a, int64_t residue, int64_t n, int64_t first,
                   int64_t last) {
  AxisTile tile;
  Window all{n, 0};
  for (int64_t i = first; i < last; ++i) {
    const Window w = window_of(a, i, n);
    all = {std::min(all.begin, w.begin), std::max(all.end, w.end)};
    tile.queries.push_back(residue + i * a.dilation);
  }
  for (int64_t j = all.begin; j < all.end; ++j) tile.keys.push_back(residue + j * a.dilation);
  for (int64_t i = first; i < last; ++i) {
    const Window w = window_of(a, i, n);
    for (int64_t j = all.begin; j < all.end; ++j) tile.mask.push_back(w.begin <= j && j < w.end);
  }
  tile.masked = std::count(tile.mask.begin(), tile.mask.end(), false) > 0;
  return tile;
}

/// Tiles of one axis, by form.
using Forms = std::vector<std::vector<AxisTile>>;

Forms axis_tiles(const NeighborhoodAxis& a) {
  std::map<decltype(AxisTile().form()), std::vector<AxisTile>> by_form;
  for (int64_t residue = 0; residue < a.dilation; ++residue) {
    const int64_t n = (a.length - residue + a.dilation - 1) / a.dilation;
    const int64_t length = tile_length(a, n);
    for (int64_t first = 0; first < n; first += length) {
      AxisTile tile = make_tile(a, residue, n, first, std::min(first + length, n));
      by_form[tile.form()].push_back(std::move(tile));
    }
  }
  Forms forms;
  for (auto& [form, tiles] : by_form) forms.push_back(std::move(tiles));
  return forms;
}

using Positions = std::vector<int64_t> AxisTile::*;

/// Token numbers of every tile of the product of three lists: [tiles, tokens a tile].
at::Tensor token_numbers(const std::vector<AxisTile>& t, const std::vector<AxisTile>& h,
                         const std::vector<AxisTile>& w, Positions which, int64_t height,
                         int64_t width) {
  const auto size = [&](const std::vector<AxisTile>& tiles) { return (tiles[0].*which).size(); };
  const auto count = static_cast<int64_t>(t.size() * h.size() * w.size());
  const at::Tensor out =
      at::empty({count, static_cast<int64_t>(size(t) * size(h) * size(w))}, at::kLong);
  int64_t* next = out.mutable_data_ptr<int64_t>();
  for (const AxisTile& a : t)
    for (const AxisTile& b : h)
      for (const AxisTile& c : w)
        for (const int64_t i : a.*which)
          for (const int64_t j : b.*which)
            for (const int64_t k : c.*which) *next++ = (i * height + j) * width + k;
  return out;
}

at::Tensor mask_of(const AxisTile& tile) {
  const at::Tensor mask =
      at::empty({static_cast<int64_t>(tile.queries.size()), static_cast<int64_t>(tile.keys.size())},
                at::kBool);
  std::copy(tile.mask.begin(), tile.mask.end(), mask.mutable_data_ptr<bool>());
  return mask;
}

at::Tensor product_mask(const AxisTile& t, const AxisTile& h, const AxisTile& w) {
  if (!t.masked && !h.masked && !w.masked) return {};
  const auto spread = [](const AxisTile& tile, int axis) {
    std::vector<int64_t> shape(6, 1);
    shape[axis] = static_cast<int64_t>(tile.queries.size());
    shape[axis + 3] = static_cast<int64_t>(tile.keys.size());
    return mask_of(tile).view(shape);
  };
  return (spread(t, 0) & spread(h, 1) & spread(w, 2)).flatten(3).flatten(0, 2);
}

}  // namespace

NeighborhoodPlan::NeighborhoodPlan(std::array<NeighborhoodAxis, 3> axes, at::Device device)
    : axes_(axes), device_(device) {
  for (int i = 0; i < 3; ++i) check_axis(axes[i], kAxisNames[i]);
  const int64_t height = axes[1].length, width = axes[2].length;
  const Forms times = axis_tiles(axes[0]), rows = axis_tiles(axes[1]),
              columns = axis_tiles(axes[2]);
  for (const auto& t : times)
    for (const auto& h : rows)
      for (const auto& w : columns) {
        const at::Tensor mask = product_mask(t[0], h[0], w[0]);
        groups_.push_back({token_numbers(t, h, w, &AxisTile::queries, height, width).to(device),
                           token_numbers(t, h, w, &AxisTile::keys, height, width).to(device),
                           mask.defined() ? mask.to(device) : mask});
      }
}

}  // namespace cosmos::ops
