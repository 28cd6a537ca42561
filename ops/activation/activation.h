#pragma once

// Activations of MLPs, alone or gating a second linear's output.
//
//   gelu     x Φ(x), Φ the standard normal distribution; with approximate = "tanh"
//            0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))
//   swiglu   silu(gate) * up, where silu(x) = x / (1 + e^-x)
//   geglu    gelu(gate) * up
//
// Any shape, the same for gate and up -> that shape, contiguous. gate and up may be parts of one
// wider tensor, such as the halves of a fused gate_up projection: where the last dimension is
// contiguous and one stride leads from row to row, they are read in place.
// Dtypes: float32, bfloat16, float16 (float64 on the CPU). Between load and store everything is
// float32 (float64 for float64): swiglu and geglu round once, not after the activation too.
// Exact GELU in float32 has ATen's absolute error, 1.3e-7 |x|, and a relative one of 2e-3 at most
// down to x = -5.5, where ATen's 1 + erf cancels.
//
// Saved for backward: the inputs, nothing else; the activation is computed again. One pass writes
// both gradients. Bytes per element: gelu forward 2, backward 3; gated forward 3, backward 5.
// Source: GELU (Hendrycks & Gimpel, 2016), GLU variants (Shazeer, 2020).
//
// Errors (cosmos::Error): a shape, dtype or device that does not fit, an `approximate` other than
// "none" and "tanh", with expected and got; a second derivative.

#include <ATen/core/Tensor.h>
#include <string_view>

namespace cosmos::ops {

at::Tensor gelu(const at::Tensor& x, std::string_view approximate = "none");
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up,
                 std::string_view approximate = "none");

/// The definition, operation by operation.
namespace reference {
at::Tensor gelu(const at::Tensor& x, std::string_view approximate = "none");
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up,
                 std::string_view approximate = "none");
}  // namespace reference

}  // namespace cosmos::ops
