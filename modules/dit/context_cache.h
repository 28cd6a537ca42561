#pragma once

// What is computed of a text once and read at every step of a generation: its projection, and each
// block's keys and values of it, which depend on neither the step nor the video.

#include <map>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// Results by the module that computes them, for one text (and image context). For calls without
/// gradients while weights and adapters stay as they are; another text needs another cache.
class ContextCache {
 public:
  /// What `compute` gave for this module the first time.
  template <typename Fn>
  const Tensors& once(const torch::nn::Module& module, Fn compute) {
    const auto found = held_.find(&module);
    return found != held_.end() ? found->second : held_[&module] = compute();
  }

 private:
  std::map<const torch::nn::Module*, Tensors> held_;
};

}  // namespace cosmos::modules
