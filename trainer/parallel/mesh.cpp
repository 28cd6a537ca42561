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

/// The ranks on the line through `rank` along an axis whose neighbours are `stride` apart.
std::vector<int64_t> line(int64_t rank, int64_t stride, int64_t size) {
  const int64_t first = rank - rank / stride % size * stride;
  std::vector<int64_t> ranks;
  for (int64_t i = 0; i < size; ++i) ranks.push_back(first + i * stride);
  return ranks;
}

}  // namespace

Mesh::Mesh(std::shared_ptr<Group> world, const Axes& axes, const Spans& spans)
    : world_(std::move(world)) {
  check(axes, world_->size());
  std::map<std::string, std::pair<int64_t, int64_t>> lines;  // stride and size
  int64_t stride = world_->size();
  for (const auto& [name, size] : axes) {
    stride /= size;
    lines[name] = {stride, size};
    groups_[name] = world_->subgroup(name, line(world_->rank(), stride, size));
  }
  for (const auto& [name, parts] : spans) {
    int64_t size = 1;
    for (const std::string& part : parts) size *= lines.at(part).second;
    const int64_t inner = lines.at(parts.back()).first;
    groups_[name] = world_->subgroup(name, line(world_->rank(), inner, size));
  }
}

const Group& Mesh::axis(const std::string& name) const {
  const auto found = groups_.find(name);
  return found == groups_.end() ? alone_ : *found->second;
}

}  // namespace cosmos::trainer
