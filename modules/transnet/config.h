#pragma once

// Settings of TransNetV2: the keys are the arguments of the public class's constructor.

#include "modules/core/fields.h"
#include "modules/hub/lazy_tensor.h"

namespace cosmos::modules {

struct TransNetConfig {
  int64_t F = 16;    ///< filters of a branch in the first stack, doubled in each next
  int64_t L = 3;     ///< stacks
  int64_t S = 2;     ///< blocks of a stack
  int64_t D = 1024;  ///< width before the heads
  bool use_many_hot_targets = true;
  bool use_frame_similarity = true;
  bool use_color_histograms = true;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("F", F, "filters of a branch in the first stack, doubled in each next");
    v("L", L, "stacks; the head is made for 3");
    v("S", S, "blocks of a stack");
    v("D", D, "width before the heads");
    v("use_many_hot_targets", use_many_hot_targets, "a second head: every frame of a transition");
    v("use_frame_similarity", use_frame_similarity);
    v("use_color_histograms", use_color_histograms);
  }

  /// Reads and checks. Throws Error naming `where` and the setting.
  static TransNetConfig from_json(const Json& json, const std::string& where);
  /// What the shapes of a state dict say. Throws Error naming `where` when it is no TransNetV2's.
  static TransNetConfig of_weights(const LazyTensors& weights, const std::string& where);
  void check(const std::string& where) const;
};

}  // namespace cosmos::modules
