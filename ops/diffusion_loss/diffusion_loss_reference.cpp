#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "ops/core/check.h"
#include "ops/diffusion_loss/diffusion_loss.h"

namespace cosmos::ops::reference {
namespace {

at::Tensor over_planes(const at::Tensor& per_frame, at::ScalarType type) {
  return per_frame.to(type).unsqueeze(1).unsqueeze(3).unsqueeze(4);  // [B, 1, T, 1, 1]
}

at::Tensor mixed(const at::Tensor& x0, const at::Tensor& noise, const at::Tensor& x0_scale,
                 const at::Tensor& noise_scale, at::ScalarType type) {
  return over_planes(x0_scale, type) * x0.to(type) +
         over_planes(noise_scale, type) * noise.to(type);
}

}  // namespace

at::Tensor diffusion_input(const at::Tensor& x0, const at::Tensor& noise,
                           const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                           at::ScalarType dtype) {
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  return mixed(x0, noise, x0_scale, noise_scale, wide).to(dtype);
}

at::Tensor diffusion_loss(const at::Tensor& output, const at::Tensor& x0, const at::Tensor& noise,
                          const at::Tensor& x0_scale, const at::Tensor& noise_scale,
                          const at::Tensor& weight) {
  const at::ScalarType wide = accumulate_dtype(output);
  const at::Tensor error = output.to(wide) - mixed(x0, noise, x0_scale, noise_scale, wide);
  const auto counted = over_planes(weight, wide) != 0;
  const at::Tensor square = at::where(counted, error, at::zeros_like(error)).square();
  const double inner = static_cast<double>(output.size(1) * output.size(3) * output.size(4));
  return (square.sum({1, 3, 4}) / std::max(inner, 1.0) * weight.to(wide)).sum(1);
}

}  // namespace cosmos::ops::reference
