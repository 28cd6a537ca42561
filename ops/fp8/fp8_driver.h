#pragma once

// Shapes and buffers of fp8_quantize.h, below the dispatcher.

#include <ATen/core/Tensor.h>
#include <optional>

#include "ops/fp8/fp8_quantize.h"

namespace cosmos::ops::driver {

/// What is made of x; undefined where not wanted.
struct Fp8Sides {
  Fp8Tensor plain, transposed;
};

/// `scale` is checked and laid out as the plain side's, or, where only the transposed side is
/// wanted, as the transposed side's.
Fp8Sides fp8_quantize(const at::Tensor& x, const Fp8Options& options,
                      const std::optional<at::Tensor>& scale, bool plain, bool transposed);

at::Tensor fp8_dequantize(const at::Tensor& values, const at::Tensor& scale, at::ScalarType dtype);

/// Shape of the scales of x, or of x^T.
std::vector<c10::SymInt> fp8_scale_sizes(const at::Tensor& x, Fp8Granularity granularity,
                                         bool transposed);

/// Rows of x as a matrix: all dimensions but the last.
c10::SymInt fp8_rows_of(const at::Tensor& x);

/// The granularity that the scale's shape says. Throws Error where it fits none.
Fp8Granularity fp8_granularity_of(const char* op, const at::Tensor& values,
                                  const at::Tensor& scale);

}  // namespace cosmos::ops::driver
