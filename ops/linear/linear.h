#pragma once

// A linear layer whose product with a few rows runs at the speed of the memory.
//
//   y = x Wᵀ + b
//
// x: [..., in], weight W: [out, in], bias b: [out] or none -> [..., out]; of one dtype on one
// device, as at::linear takes them.
//
// On the CPU a product of at most kFewRows rows, as a language model's for every token it writes,
// does nothing but read W. Inside a StreamFewRows, in float32 and bfloat16, each thread streams
// rows of W of its own, widened in registers, past all rows of x; sums are float32, b is added
// before the one rounding. What a row gives depends neither on the rows beside it nor on the number
// of threads. Every other product, and any that a gradient is wanted of, is at::linear.
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, with expected and got.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

/// While one lives, this thread's products with few rows are streamed. They differ from
/// at::linear's in the last bits, so a scope says where: not around a block that is run again for
/// its gradients.
class StreamFewRows {
 public:
  StreamFewRows();
  ~StreamFewRows();
  StreamFewRows(const StreamFewRows&) = delete;
  StreamFewRows& operator=(const StreamFewRows&) = delete;

 private:
  bool before_;
};

/// Rows of x up to which the CPU streams the weight.
inline constexpr int64_t kFewRows = 4;

/// `bias` may be undefined.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace cosmos::ops
