#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include "ops/activation/activation.h"
#include "ops/core/check.h"

namespace cosmos::ops::reference {

at::Tensor gelu(const at::Tensor& x, std::string_view approximate) {
  return at::gelu(x.to(accumulate_dtype(x)), approximate).to(x.scalar_type());
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  const at::ScalarType wide = accumulate_dtype(gate);
  return (at::silu(gate.to(wide)) * up.to(wide)).to(gate.scalar_type());
}

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, std::string_view approximate) {
  const at::ScalarType wide = accumulate_dtype(gate);
  return (at::gelu(gate.to(wide), approximate) * up.to(wide)).to(gate.scalar_type());
}

}  // namespace cosmos::ops::reference
