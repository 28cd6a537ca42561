#pragma once

// The ranks of a run as a grid with named axes, and each rank's groups along them.
//
// Row-major, the last axis fastest: ranks that follow each other (and so share a machine) lie along
// the last axis. With axes {replica, 2}, {shard, 2}, ranks 0 and 1 shard one replica, 2 and 3 the
// other; 0 and 2 hold the same shard.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trainer/parallel/group.h"

namespace cosmos::trainer {

class Mesh {
 public:
  using Axes = std::vector<std::pair<std::string, int64_t>>;
  /// Axes taken together under a name of their own, in their order: {"weights", {"shard",
  /// "context"}}.
  using Spans = std::vector<std::pair<std::string, std::vector<std::string>>>;

  /// Called by all ranks of `world`; makes a group for every axis and span longer than 1. Throws
  /// Error when the product of the sizes is not the world's size.
  Mesh(std::shared_ptr<Group> world, const Axes& axes, const Spans& spans = {});

  const Group& world() const { return *world_; }
  /// The ranks that differ from this one in axis (or span) `name` only, numbered by it. A group of
  /// one where the axis is 1 or absent, so that callers need not ask which axes there are.
  const Group& axis(const std::string& name) const;
  /// This rank's place along `name`: axis(name).rank().
  int64_t coordinate(const std::string& name) const { return axis(name).rank(); }

 private:
  std::shared_ptr<Group> world_;
  std::map<std::string, std::shared_ptr<Group>> groups_;
  Group alone_{"alone"};
};

}  // namespace cosmos::trainer
