#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>

#include "ops/core/check.h"
#include "ops/norm/adaln.h"

namespace cosmos::ops::reference {

at::Tensor adaln(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift,
                 double eps) {
  const at::ScalarType wide = accumulate_dtype(x);
  const at::Tensor centred = x.to(wide) - x.to(wide).mean(-1, /*keepdim=*/true);
  const at::Tensor variance = (centred * centred).mean(-1, /*keepdim=*/true);
  const at::Tensor normed = centred * at::rsqrt(variance + eps);
  return (normed * (scale.to(wide) + 1) + shift.to(wide)).to(x.scalar_type());
}

at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  const at::ScalarType wide = accumulate_dtype(x);
  return (x.to(wide) + gate.to(wide) * y.to(wide)).to(x.scalar_type());
}

}  // namespace cosmos::ops::reference
