#include "trainer/parallel/mesh.h"

#include <sstream>

namespace cosmos::trainer {
namespace {

void check(const Mesh::Axes& axes, int64_t world) {
  int64_t product = 1;
  std::ostringstream text;
  std::map<std::string, int> seen;
  for (const auto& [name, size] : axes) {
    require(size >= 1 && seen[name]++ == 0, "mesh: expected every axis once with a size from 1, ",
            "got ", name, " = ", size);
    product *= size;
    text << (text.tellp() > 0 ? " x " : "") << name << " " << size;
  }
  require(product == world, "mesh: expected sizes whose product is the number of ranks, ", world,
          ", got ", text.str(), " = ", product, "; change one of them or start ", product,
          " ranks");
}

struct Line {
  int64_t stride = 1, size = 1;  ///< neighbours are `stride` apart
};

/// The ranks that differ from `rank` along `lines` only, the last one fastest.
std::vector<int64_t> ranks_along(int64_t rank, const std::vector<Line>& lines) {
  for (const Line& line : lines) rank -= rank / line.stride % line.size * line.stride;
  std::vector<int64_t> ranks = {rank};
  for (const Line& line : lines) {
    std::vector<int64_t> more;
    for (const int64_t first : ranks)
      for (int64_t i = 0; i < line.size; ++i) more.push_back(first + i * line.stride);
    ranks = std::move(more);
  }
  return ranks;
}

}  // namespace

Mesh::Mesh(std::shared_ptr<Group> world, const Axes& axes, const Spans& spans)
    : world_(std::move(world)) {
  check(axes, world_->size());
  std::map<std::string, Line> lines;
  int64_t stride = world_->size();
  for (const auto& [name, size] : axes) {
    stride /= size;
    lines[name] = {stride, size};
    groups_[name] = world_->subgroup(name, ranks_along(world_->rank(), {lines[name]}));
  }
  for (const auto& [name, parts] : spans) {
    std::vector<Line> along;
    for (const std::string& part : parts) along.push_back(lines.at(part));
    groups_[name] = world_->subgroup(name, ranks_along(world_->rank(), along));
  }
}

const Group& Mesh::axis(const std::string& name) const {
  const auto found = groups_.find(name);
  return found == groups_.end() ? alone_ : *found->second;
}

}  // namespace cosmos::trainer
