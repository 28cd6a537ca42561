#pragma once

// Argument checks that say what was expected and what came, and the few tensor helpers that every
// operator's driver uses.

#include <ATen/core/Tensor.h>
#include <string>

#include "ops/core/dtype.h"
#include "ops/core/error.h"

namespace cosmos::ops {

/// "float32 [2, 3] on cpu", or "an undefined tensor".
std::string describe(const at::Tensor& x);

/// The kernel's name of x's dtype. Throws Error unless it is float32, float64, bfloat16 or float16.
DType dtype_of(const char* op, const char* name, const at::Tensor& x);

/// The dtype in which a kernel accumulates: float64 for float64, float32 for all others.
at::ScalarType accumulate_dtype(const at::Tensor& x);

/// Throws Error unless `y` has x's dtype and device. `op`, `x_name`, `y_name` go into the message.
void check_alike(const char* op, const char* x_name, const at::Tensor& x, const char* y_name,
                 const at::Tensor& y);

/// Throws Error unless `y` has x's shape, dtype and device.
void check_same(const char* op, const char* x_name, const at::Tensor& x, const char* y_name,
                const at::Tensor& y);

/// Throws Error when a backward pass is itself to be differentiated: these operators have first
/// derivatives only.
void refuse_double_backward(const char* op);

}  // namespace cosmos::ops
