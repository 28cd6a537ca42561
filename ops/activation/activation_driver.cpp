#include "ops/activation/activation_driver.h"

#include <ATen/ops/empty.h>
#include <algorithm>
#include <vector>

#include "ops/activation/activation_kernel.h"
#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(activation_forward, ActivationForward)
COSMOS_SIMD_KERNEL(activation_backward, ActivationBackward)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

/// Operands of one shape, seen as rows: trailing dimensions that are contiguous in every operand
/// are one row. Tensors that no single stride between rows describes are copied.
class Rows {
 public:
  Rows(ActivationKind kind, std::vector<at::Tensor> operands) : operands_(std::move(operands)) {
    const at::Tensor& x = operands_.front();
    int64_t left = x.dim();
    for (at::Tensor& t : operands_)
      if (left > 0 && t.size(-1) != 1 && t.stride(-1) != 1) t = t.contiguous();
    int64_t dim = 1;
    const auto continues_row = [&](const at::Tensor& t) {
      return t.size(left - 1) == 1 || t.stride(left - 1) == dim;
    };
    while (left > 0 && std::all_of(operands_.begin(), operands_.end(), continues_row))
      dim *= x.size(--left);
    shape_ = {dtype_of("activation", "x", x), kind, dim > 0 ? x.numel() / dim : 0, dim};
    for (at::Tensor& t : operands_) t = t.reshape({shape_.rows, dim});
  }

  const ActivationShape& shape() const { return shape_; }
  RowsView operator[](std::size_t i) const {
    return {operands_[i].const_data_ptr(), operands_[i].stride(0)};
  }
  int64_t units() const { return shape_.rows * activation_units_per_row(shape_); }
  int64_t grain() const { return grain_rows(std::min(shape_.dim, kActivationUnit)); }

 private:
  std::vector<at::Tensor> operands_;  // keeps the copies alive
  ActivationShape shape_{};
};

void check(const at::Tensor& x, const std::optional<at::Tensor>& up, int64_t kind) {
  dtype_of("activation", "x", x);
  if (up) check_same("activation", "x", x, "up", *up);
  require(kind >= 0 && kind <= static_cast<int64_t>(ActivationKind::kGeluTanh),
          "activation: kind: expected 0 (silu), 1 (gelu) or 2 (gelu, tanh), got ", kind);
}

at::Tensor contiguous_like(const at::Tensor& x) {
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

at::Tensor activation_forward(const at::Tensor& x, const std::optional<at::Tensor>& up,
                              int64_t kind) {
  check(x, up, kind);
  at::Tensor out = contiguous_like(x);
  if (x.is_meta() || x.numel() == 0) return out;
  std::vector<at::Tensor> operands{x};
  if (up) operands.push_back(*up);
  const Rows rows(static_cast<ActivationKind>(kind), std::move(operands));
  ActivationForward p{rows.shape(), rows[0], {}, out.mutable_data_ptr()};
  if (up) p.up = rows[1];
  launch(x, p, rows.units(), rows.grain(), ops::activation_forward,
         COSMOS_CUDA_KERNEL(activation_forward_cuda));
  return out;
}

std::tuple<at::Tensor, at::Tensor> activation_backward(const at::Tensor& grad, const at::Tensor& x,
                                                       const std::optional<at::Tensor>& up,
                                                       int64_t kind) {
  check(x, up, kind);
  check_same("activation", "x", x, "grad", grad);
  at::Tensor grad_x = contiguous_like(x);
  at::Tensor grad_up = up ? contiguous_like(x) : at::empty({0}, x.options());
  if (x.is_meta() || x.numel() == 0) return {grad_x, grad_up};
  std::vector<at::Tensor> operands{grad, x};
  if (up) operands.push_back(*up);
  const Rows rows(static_cast<ActivationKind>(kind), std::move(operands));
  ActivationBackward p{rows.shape(), rows[0], rows[1], {}, grad_x.mutable_data_ptr(), nullptr};
  if (up) {
    p.up = rows[2];
    p.grad_up = grad_up.mutable_data_ptr();
  }
  launch(x, p, rows.units(), rows.grain(), ops::activation_backward,
         COSMOS_CUDA_KERNEL(activation_backward_cuda));
  return {grad_x, grad_up};
}

}  // namespace cosmos::ops::driver
