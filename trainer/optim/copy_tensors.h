#pragma once

#include <string>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// Copies `from` into the tensors of `to`, name by name. Nothing is copied unless both have the
/// same names and shapes: otherwise throws one Error that lists what is missing, unexpected or of
/// another shape. `where` names the source.
void copy_tensors(const TensorMap& from, const TensorMap& to, const std::string& where);

}  // namespace cosmos::trainer
