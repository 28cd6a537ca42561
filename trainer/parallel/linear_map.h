#pragma once

#include <functional>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// y = A x, whose gradient is A' dy: a linear operation that autograd does not know, and its
/// adjoint, which is called in every backward.
Tensor apply_linear(std::function<Tensor(const Tensor&)> map,
                    std::function<Tensor(const Tensor&)> adjoint, const Tensor& x);

}  // namespace cosmos::trainer
