#pragma once

// The way from one stage of a pipeline to the next, for values, and back, for their gradients.

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "trainer/parallel/mesh.h"

namespace cosmos::trainer {

/// An output of a block, as the stages behind it know it.
struct StageValue {
  std::string block;
  int64_t output = 0;  ///< which one of the block's
  std::vector<int64_t> sizes;
  torch::Dtype dtype = torch::kFloat32;
  bool requires_grad = false;
  bool carried = false;  ///< it travels; of the others only the shape is known

  bool operator==(const StageValue&) const = default;
};

/// All outputs of the blocks before a cut, in the order in which they were computed.
using StageLayout = std::vector<StageValue>;

/// Ranks of neighbouring stages, one direction. A group each, so that messages of one direction
/// never wait for those of another (NCCL runs a group's in order).
class PipelineLink {
 public:
  /// From `sender` to `receiver`, places on the mesh's axis "pipeline". Called by both.
  PipelineLink(const Mesh& mesh, const std::string& name, int64_t sender, int64_t receiver);

  /// Begins to send. Tensors that are not contiguous are copied. Waits for the oldest when several
  /// are under way, so that memory does not grow with a step's micro-batches.
  void send(const Tensors& tensors);
  /// Begins to fill `tensors`.
  Pending receive(const Tensors& tensors) const;
  void send_layout(const StageLayout& layout);
  StageLayout receive_layout() const;
  /// Waits for all that was sent.
  void finish();
  /// Bytes sent so far, without layouts.
  int64_t sent_bytes() const { return sent_; }

 private:
  std::shared_ptr<Group> group_;
  std::deque<std::pair<Pending, Tensors>> sending_;
  int64_t sent_ = 0;
};

/// The tensors of all ranks of `group`, each from the first that has it. For small or rare things
/// (checkpoints, validation): one after another, with a list of names before.
TensorMap share_tensors(const Group& group, const TensorMap& mine, torch::Device device);

}  // namespace cosmos::trainer
