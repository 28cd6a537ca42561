#pragma once

// Tensors that have a shape and no bytes: parameters of a model that no process holds whole. Its
// ranks take their parts of a file one tensor at a time (trainer/parallel).

#include "modules/core/init.h"
#include "modules/core/tensor.h"

namespace cosmos::modules {

/// A contiguous tensor of `sizes` whose storage is empty. Reading it is an error of the caller.
Tensor hollow(at::IntArrayRef sizes, const at::TensorOptions& options);
/// Whether `x` has elements but no bytes for them.
bool is_hollow(const Tensor& x);

/// While one lives, parameters of modules that are constructed on this thread are hollow. Adapters
/// that are attached afterwards have theirs.
class HollowInit {
 public:
  HollowInit();
  ~HollowInit();
  HollowInit(const HollowInit&) = delete;
  HollowInit& operator=(const HollowInit&) = delete;

 private:
  SkipInit skip_;
};

/// What a module's constructor registers as a parameter: float32 of `sizes`, not initialised.
Tensor new_parameter(at::IntArrayRef sizes);

}  // namespace cosmos::modules
