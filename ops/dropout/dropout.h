#pragma once

// Dropout whose mask is drawn where it is used: a function of a sample's seed and the element's
// place in the sample, so that nothing is stored, recomputing a block repeats it, and neither the
// batch around a sample nor the device or the number of threads changes it.
//
//   out = keep ? x / q : 0,   keep with probability q = 1 - p
//
// x: [B, ...] in float32, bfloat16, float16 or float64 -> the same, contiguous. seeds: one for each
// sample (entry of x's first dimension), or one for all of x as a single sample. p in [0, 1) is
// taken in steps of 2^-16, and q is what remains.
//
// Element i of a sample, with u = i / 512 and j = i % 512, compares 16 bits with p * 2^16: of word
// j % 4 of Philox block (seed; counter 64 u + j % 256 / 4) the low ones for j < 256, else the high
// ones.
//
// Where ranks split a sample, x is a slice of it and takes the slice's part of the whole mask.
// `slice` = {rows, first_row, whole_rows, first_feature, whole_features}: of x's rows (all but its
// last dimension), every `rows` are the rows [first_row, first_row + rows) of a group of
// whole_rows, and their features are [first_feature, first_feature + x.size(-1)) of whole_features.
// Empty: x is whole.
//
// Saved for backward: nothing. Bytes per element: forward 2, backward 2. The gradient of a gradient
// is the same mask again. Source: Srivastava et al. (2014); Salmon et al. (SC 2011) for Philox.
//
// Errors (cosmos::Error): p outside [0, 1), a number of seeds or a slice that does not fit,
// another dtype.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

at::Tensor seeded_dropout(const at::Tensor& x, double p, at::IntArrayRef seeds,
                          at::IntArrayRef slice = {});

/// The definition, operation by operation.
namespace reference {
at::Tensor seeded_dropout(const at::Tensor& x, double p, at::IntArrayRef seeds,
                          at::IntArrayRef slice = {});
}  // namespace reference

}  // namespace cosmos::ops
