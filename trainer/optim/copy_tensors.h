#pragma once

#include <functional>
#include <string>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

using TakeNamed = std::function<void(const std::string& name, const Tensor& tensor)>;

/// Copies `from` into the tensors of `to`, name by name. Nothing is copied unless both have the
/// same names and shapes: otherwise throws one Error that lists what is missing, unexpected or of
/// another shape. `where` names the source. `take` (name, tensor of `from`) in place of a copy: for
/// a target that holds a part of the tensor; `to` then gives names and shapes.
void copy_tensors(const TensorMap& from, const TensorMap& to, const std::string& where,
                  const TakeNamed& take = {});

}  // namespace cosmos::trainer
