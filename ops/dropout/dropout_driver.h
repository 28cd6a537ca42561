#pragma once

// Shapes and buffers of dropout.h, below autograd. Operators that drop an input of their own
// (lora_linear) call these.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

/// p in steps of 2^-16, and the scale of what is kept.
struct DropoutRate {
  explicit DropoutRate(double p);
  uint32_t threshold;
  double scale;
};

/// Throws Error unless p is a probability below 1, seeds has one entry, or one for each of x's
/// samples (first dimension), and slice is empty or fits x.
void check_dropout(const char* op, const at::Tensor& x, double p, at::IntArrayRef seeds,
                   at::IntArrayRef slice);

namespace driver {

/// x with the elements of each of the seeds.size() equal parts dropped.
at::Tensor seeded_dropout(const at::Tensor& x, double p, at::IntArrayRef seeds,
                          at::IntArrayRef slice);

/// sum += what the same mask leaves of `update`, in place; returns what it leaves of `x`, or an
/// undefined tensor for an undefined x. All of sum's shape, and sum and update contiguous.
at::Tensor seeded_dropout_add_(const at::Tensor& sum, const at::Tensor& update, const at::Tensor& x,
                               double p, at::IntArrayRef seeds, at::IntArrayRef slice);

}  // namespace driver
}  // namespace cosmos::ops
