#pragma once

// Tensors that exist in files, each read when asked for: how a checkpoint is rewritten without ever
// being in memory as a whole.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// read() maps the tensor or assembles it; nothing is kept afterwards.
struct LazyTensor {
  torch::Dtype dtype = torch::kFloat32;
  std::vector<int64_t> shape;
  std::function<Tensor()> read;  ///< CPU tensor of this dtype and shape, of any layout

  int64_t numel() const { return c10::multiply_integers(shape); }
  int64_t bytes() const { return numel() * static_cast<int64_t>(c10::elementSize(dtype)); }
};
using LazyTensors = std::map<std::string, LazyTensor>;

/// Tensors at hand as lazy ones; they are held, not copied.
LazyTensors lazy_tensors(const TensorMap& tensors);

}  // namespace cosmos::modules
