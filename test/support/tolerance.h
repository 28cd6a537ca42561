#pragma once

// How far a result may be from the float64 reference that was given the same (rounded) inputs: one
// table for every operator. Relative L2 over the tensor; `absolute` is added for tensors that are
// truly near zero.

#include <ATen/Parallel.h>
#include <sstream>
#include <string>
#include <torch/types.h>

namespace cosmos::test {

struct Tolerance {
  double relative;
  double absolute;
};

/// bfloat16 keeps 8 bits: half a unit in the last place is 2^-9 = 0.2 %, a few roundings 1.6 %.
inline Tolerance tolerance(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return {1e-12, 1e-13};
    case at::kFloat:
      return {5e-6, 1e-7};
    case at::kHalf:
      return {2e-3, 1e-5};
    default:
      return {1.6e-2, 1e-4};
  }
}

/// "" when `got` is near `want`, otherwise one line: the error, and the worst element.
inline std::string mismatch(const at::Tensor& got, const at::Tensor& want, Tolerance allowed) {
  std::ostringstream message;
  if (got.sizes() != want.sizes()) {
    message << "shape " << got.sizes() << ", expected " << want.sizes();
    return message.str();
  }
  if (want.numel() == 0) return "";
  const at::Tensor g = got.detach().to(at::kDouble).contiguous().view(-1);
  const at::Tensor w = want.detach().to(at::kDouble).contiguous().view(-1);
  const at::Tensor error = (g - w).abs();
  const double l2 = error.norm().item<double>(), scale = w.norm().item<double>();
  const double limit =
      allowed.relative * scale + allowed.absolute * std::sqrt(static_cast<double>(w.numel()));
  if (l2 <= limit) return "";
  const int64_t worst = error.argmax().item<int64_t>();
  message << "relative L2 " << l2 / scale << " (allowed " << limit / scale << "), worst at "
          << worst << ": " << g[worst].item<double>() << " for " << w[worst].item<double>();
  return message.str();
}

}  // namespace cosmos::test
