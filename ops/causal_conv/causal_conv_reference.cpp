// The plain formula of causal_conv.h.

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/zeros.h>

#include "ops/causal_conv/causal_conv.h"

namespace cosmos::ops::reference {

using at::Tensor;

Tensor causal_conv(const Tensor& x, const std::optional<Tensor>& past, const Tensor& weight,
                   const std::optional<Tensor>& bias, at::IntArrayRef stride, int64_t space_pad,
                   int64_t front, bool repeat_first) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape[1] = front;
  const Tensor before = past           ? *past
                        : repeat_first ? x.narrow(1, 0, 1).expand(shape)
                                       : at::zeros(shape, x.options());
  const Tensor z = at::cat({before, x}, 1);
  if (z.size(1) < weight.size(2)) {
    const auto out = [&](int axis) {
      return (z.size(axis) + 2 * space_pad - weight.size(axis + 1)) / stride[axis - 1] + 1;
    };
    return x.new_zeros({x.size(0), 0, out(2), out(3), weight.size(0)});
  }
  const Tensor y = at::conv3d(z.permute({0, 4, 1, 2, 3}), weight, bias, stride,
                              std::array<int64_t, 3>{0, space_pad, space_pad});
  return y.permute({0, 2, 3, 4, 1}).contiguous();
}

}  // namespace cosmos::ops::reference
