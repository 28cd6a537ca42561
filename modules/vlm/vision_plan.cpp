#include "modules/vlm/vision_plan.h"

#include <algorithm>
#include <cmath>

namespace cosmos::modules {
namespace {

// Calls visit(row, column) for every patch of one frame, in order.
template <typename Visit>
void walk_frame(const Grid& grid, int64_t merge, Visit visit) {
  const auto [t, h, w] = grid;
  for (int64_t block_row = 0; block_row < h; block_row += merge)
    for (int64_t block_column = 0; block_column < w; block_column += merge)
      for (int64_t row = block_row; row < block_row + merge; ++row)
        for (int64_t column = block_column; column < block_column + merge; ++column)
          visit(row, column);
}

// The two table rows that a position on an axis of `size` lies between, and the second's weight.
struct Between {
  int64_t low, high;
  float weight;
};

Between between(int64_t position, int64_t size, int64_t side) {
  const float source = static_cast<float>(position * (side - 1)) /
                       static_cast<float>(std::max<int64_t>(size - 1, 1));
  const float floor = std::floor(source);
  const auto low = static_cast<int64_t>(floor);
  return {.low = low, .high = std::min(low + 1, side - 1), .weight = source - floor};
}

}  // namespace

Grids read_grids(const Tensor& grid_thw, const char* name, int64_t merge) {
  require(grid_thw.dim() == 2 && grid_thw.size(1) == 3 &&
              c10::isIntegralType(grid_thw.scalar_type(), /*includeBool=*/false),
          name, ": expected integers [n, 3] (frames, rows, columns), got ", grid_thw.sizes());
  const Tensor host = grid_thw.to(torch::kCPU, torch::kInt64).contiguous();
  const auto* values = host.data_ptr<int64_t>();
  Grids grids;
  for (int64_t i = 0; i < host.size(0); ++i) {
    const Grid grid = {values[3 * i], values[3 * i + 1], values[3 * i + 2]};
    require(
        grid[0] > 0 && grid[1] > 0 && grid[2] > 0 && grid[1] % merge == 0 && grid[2] % merge == 0,
        name, "[", i, "]: expected frames, and rows and columns that are multiples of ", merge,
        ", got ", at::IntArrayRef(grid));
    grids.push_back(grid);
  }
  return grids;
}

int64_t patches(const Grid& grid) {
  return grid[0] * grid[1] * grid[2];
}

int64_t patches(const Grids& grids) {
  int64_t count = 0;
  for (const Grid& grid : grids) count += patches(grid);
  return count;
}

Tensor patch_positions(const Grids& grids, int64_t merge) {
  std::vector<int64_t> positions;
  positions.reserve(2 * patches(grids));
  for (const Grid& grid : grids)
    for (int64_t frame = 0; frame < grid[0]; ++frame)
      walk_frame(grid, merge, [&](int64_t row, int64_t column) {
        positions.push_back(row);
        positions.push_back(column);
      });
  return torch::tensor(positions, torch::kInt64).view({-1, 2});
}

std::vector<int64_t> frame_offsets(const Grids& grids) {
  std::vector<int64_t> offsets = {0};
  for (const Grid& grid : grids)
    for (int64_t frame = 0; frame < grid[0]; ++frame)
      offsets.push_back(offsets.back() + grid[1] * grid[2]);
  return offsets;
}

WindowPlan window_plan(const Grids& grids, int64_t merge, int64_t side) {
  std::vector<int64_t> order;
  WindowPlan plan{.order = {}, .offsets = {0}};
  int64_t first = 0;  // token of the frame's first
  for (const Grid& grid : grids) {
    const int64_t rows = grid[1] / merge, columns = grid[2] / merge;
    for (int64_t frame = 0; frame < grid[0]; ++frame, first += rows * columns)
      for (int64_t top = 0; top < rows; top += side)
        for (int64_t left = 0; left < columns; left += side) {
          const int64_t bottom = std::min(top + side, rows);
          const int64_t right = std::min(left + side, columns);
          for (int64_t row = top; row < bottom; ++row)
            for (int64_t column = left; column < right; ++column)
              order.push_back(first + row * columns + column);
          plan.offsets.push_back(static_cast<int64_t>(order.size()) * merge * merge);
        }
  }
  plan.order = torch::tensor(order, torch::kInt64);
  return plan;
}

InterpolationPlan interpolation_plan(const Grids& grids, int64_t merge, int64_t table_side) {
  std::vector<int64_t> rows;
  std::vector<float> weights;
  const auto add = [&](int64_t row, int64_t column, float weight) {
    rows.push_back(row * table_side + column);
    weights.push_back(weight);
  };
  for (const Grid& grid : grids)
    for (int64_t frame = 0; frame < grid[0]; ++frame)
      walk_frame(grid, merge, [&](int64_t row, int64_t column) {
        const Between y = between(row, grid[1], table_side);
        const Between x = between(column, grid[2], table_side);
        add(y.low, x.low, (1 - y.weight) * (1 - x.weight));
        add(y.low, x.high, (1 - y.weight) * x.weight);
        add(y.high, x.low, y.weight * (1 - x.weight));
        add(y.high, x.high, y.weight * x.weight);
      });
  return {.rows = torch::tensor(rows, torch::kInt64).view({-1, 4}),
          .weights = torch::tensor(weights, torch::kFloat32).view({-1, 4})};
}

}  // namespace cosmos::modules
