#pragma once

// Tensors that have a shape and no bytes: parameters of a model that no process holds whole. Its
// ranks take their parts of a file one tensor at a time (trainer/parallel).

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// A contiguous tensor of `sizes` whose storage is empty. Reading it is an error of the caller.
Tensor hollow(at::IntArrayRef sizes, const at::TensorOptions& options);
/// Whether `x` has elements but no bytes for them.
bool is_hollow(const Tensor& x);

/// Takes the bytes of every parameter of `module`.
void make_hollow(torch::nn::Module& module);

}  // namespace cosmos::modules
