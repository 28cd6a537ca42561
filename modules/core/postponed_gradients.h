#pragma once

// Weight gradients for later. In a pipeline other ranks wait for the gradients of inputs alone;
// those of weights can be computed in time that would be lost (zero-bubble schedules).

#include <functional>
#include <mutex>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

class PostponedGradients {
 public:
  /// Backward adds one; it may run on any thread.
  void add(std::function<void()> gradient);
  /// What was added since the last call, oldest first. Each adds to its weight's grad when called,
  /// and holds the product's input and output gradient until it is destroyed.
  std::vector<std::function<void()>> take();

 private:
  std::mutex mutex_;
  std::vector<std::function<void()>> gradients_;
};

/// x Wᵀ + b, whose backward leaves W's gradient to `later`; the gradients of x and b are there at
/// once. weight: a leaf, whose storage may be freed before the gradient is computed.
Tensor postponed_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const std::shared_ptr<PostponedGradients>& later);

}  // namespace cosmos::modules
