#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/silu.h>
#include <cmath>

#include "ops/channel_norm/channel_norm.h"
#include "ops/core/check.h"

namespace cosmos::ops::reference {

at::Tensor rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma, double eps,
                         bool activation) {
  const at::ScalarType type = accumulate_dtype(x);
  std::vector<int64_t> along_channels(static_cast<std::size_t>(x.dim()), 1);
  along_channels[1] = x.size(1);
  const at::Tensor wide = x.to(type);
  const at::Tensor length = at::linalg_vector_norm(wide, 2, {1}, /*keepdim=*/true).clamp_min(eps);
  const double scale = std::sqrt(static_cast<double>(x.size(1)));
  const at::Tensor y = wide / length * (gamma.to(type) * scale).view(along_channels);
  return (activation ? at::silu(y) : y).to(x.scalar_type());
}

}  // namespace cosmos::ops::reference
