#pragma once

// Which implementation an operator runs. A numeric doubt is bisected with COSMOS_OPS=reference,
// which sends every operator through its plain ATen formula.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

enum class Path {
  kFused,      ///< the kernels of this folder (default)
  kReference,  ///< the plain formula, operation by operation
};

/// COSMOS_OPS=reference or fused from the environment, until set_path() says otherwise. Throws
/// Error on any other value.
Path path();
void set_path(Path path);

/// True when `x` must take the plain formula: by choice, or because no kernel covers its device and
/// dtype (float64 on CUDA).
bool use_reference(const at::Tensor& x);

}  // namespace cosmos::ops
