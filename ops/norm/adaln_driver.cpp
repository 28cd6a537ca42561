#include "ops/norm/adaln_driver.h"

#include <ATen/ops/empty.h>
#include <algorithm>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/segment_reduce_kernel.h"
#include "ops/norm/adaln_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(adaln_forward, AdaLnForward)
COSMOS_SIMD_KERNEL(adaln_backward, AdaLnBackward)
COSMOS_SIMD_KERNEL(gated_residual_forward, GatedResidualForward)
COSMOS_SIMD_KERNEL(gated_residual_backward, GatedResidualBackward)
COSMOS_SIMD_KERNEL(segment_reduce, SegmentReduce)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

/// Number of leading dimensions whose rows have modulation of their own.
int64_t modulated_dims(const at::Tensor& modulation) {
  int64_t count = modulation.dim() - 1;
  while (count > 0 && modulation.sym_size(count - 1) == 1) --count;
  return count;
}

RowShape row_shape(const char* op, const at::Tensor& x, const at::Tensor& modulation) {
  RowShape shape;
  shape.dtype = dtype_of(op, "x", x);
  shape.dim = x.size(-1);
  shape.rows = x.numel() / shape.dim;
  const int64_t segments = modulation.numel() / shape.dim;
  shape.segment = segments > 0 ? shape.rows / segments : 0;
  // Long enough that partial sums cost little to add up, short enough to occupy every thread.
  shape.chunk_rows = std::clamp<int64_t>(shape.segment, 1, 32);
  shape.chunks = (shape.segment + shape.chunk_rows - 1) / shape.chunk_rows;
  return shape;
}

int64_t segments_of(const RowShape& shape) {
  return shape.segment > 0 ? shape.rows / shape.segment : 0;
}

/// Modulation rows in place where a stride describes them, otherwise through the copy in `holder`.
Modulation rows_of(const at::Tensor& modulation, at::Tensor& holder) {
  holder = modulation.reshape({-1, modulation.size(-1)});
  if (holder.stride(1) != 1) holder = holder.contiguous();
  return {holder.const_data_ptr(), holder.stride(0)};
}

const void* pointer(const at::Tensor& x) {
  return x.const_data_ptr();
}
void* mutable_pointer(const at::Tensor& x) {
  return x.defined() ? x.mutable_data_ptr() : nullptr;
}

// What a call returns, before it is computed; all that meta tensors get. Sizes may be symbolic.
at::Tensor rows_like(const at::Tensor& x) {
  return at::empty_symint(x.sym_sizes(), x.options());
}
at::Tensor statistics_like(const at::Tensor& x) {
  return at::empty_symint(x.sym_sizes().slice(0, x.dim() - 1),
                          x.options().dtype(accumulate_dtype(x)));
}
at::Tensor modulation_like(bool wanted, const at::Tensor& modulation) {
  return wanted ? rows_like(modulation) : at::empty({0}, modulation.options());
}

/// Partial sums of one modulation gradient, and their total.
struct ModulationGrad {
  at::Tensor partial, total;
  const at::Tensor& like;
  const RowShape& shape;

  ModulationGrad(bool wanted, const at::Tensor& modulation, const RowShape& shape)
      : like(modulation), shape(shape) {
    total = modulation_like(wanted, modulation);
    if (!wanted) return;
    // One chunk a segment, already in the accumulate type: the partial is the total.
    const at::ScalarType wide = accumulate_dtype(modulation);
    partial = shape.chunks == 1 && modulation.scalar_type() == wide
                  ? total
                  : at::empty({segments_of(shape) * shape.chunks, shape.dim},
                              modulation.options().dtype(wide));
  }

  at::Tensor reduce() {
    if (!partial.defined() || partial.is_same(total)) return total;
    if (shape.chunks == 0) return total.zero_();
    const SegmentReduce params{shape.dtype, segments_of(shape),       shape.chunks,
                               shape.dim,   mutable_pointer(partial), mutable_pointer(total)};
    launch(like, params, params.segments, grain_rows(shape.dim * shape.chunks), segment_reduce,
           COSMOS_CUDA_KERNEL(segment_reduce_cuda));
    return total;
  }
};

}  // namespace

at::Tensor expand_modulation(const char* op, const at::Tensor& x, const char* name,
                             const at::Tensor& modulation) {
  dtype_of(op, "x", x);
  require(x.dim() >= 2 && x.sym_size(-1) > 0, op, ": x: expected [..., D] with D > 0, got ",
          describe(x));
  check_alike(op, "x", x, name, modulation);
  // Sizes as SymInt, so that Python can trace with symbolic shapes.
  bool fits = modulation.dim() == x.dim() && modulation.sym_size(-1) == x.sym_size(-1);
  std::vector<c10::SymInt> wanted = modulation.sym_sizes().vec();
  for (int64_t i = 0; fits && i < modulated_dims(modulation); ++i) {
    fits = wanted[i] == x.sym_size(i) || wanted[i] == 1;
    wanted[i] = x.sym_size(i);
  }
  require(fits, op, ": ", name, ": expected x's rank with each leading size x's or 1 and ",
          x.sym_size(-1), " last, for x ", describe(x), "; got ", describe(modulation));
  return modulation.expand_symint(wanted);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> adaln_forward(const at::Tensor& x_any,
                                                             const at::Tensor& scale,
                                                             const at::Tensor& shift, double eps) {
  if (x_any.is_meta()) return {rows_like(x_any), statistics_like(x_any), statistics_like(x_any)};
  const at::Tensor x = x_any.contiguous();
  const at::Tensor normed = rows_like(x), mean = statistics_like(x), rstd = statistics_like(x);
  at::Tensor scale_rows, shift_rows;
  AdaLnForward p{};
  p.shape = row_shape("adaln", x, scale);
  p.x = pointer(x);
  p.scale = rows_of(scale, scale_rows);
  p.shift = rows_of(shift, shift_rows);
  p.eps = eps;
  p.normed = mutable_pointer(normed);
  p.mean = mutable_pointer(mean);
  p.rstd = mutable_pointer(rstd);
  launch(x, p, p.shape.rows, grain_rows(p.shape.dim), ops::adaln_forward,
         COSMOS_CUDA_KERNEL(adaln_forward_cuda));
  return {normed, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> adaln_backward(
    const at::Tensor& grad_any, const at::Tensor& x_any, const at::Tensor& scale,
    const at::Tensor& mean, const at::Tensor& rstd, bool modulation) {
  check_same("adaln_backward", "x", x_any, "grad", grad_any);
  if (x_any.is_meta())
    return {rows_like(x_any), modulation_like(modulation, scale),
            modulation_like(modulation, scale)};
  const at::Tensor x = x_any.contiguous(), grad = grad_any.contiguous();
  const at::Tensor grad_x = rows_like(x);
  at::Tensor scale_rows;
  AdaLnBackward p{};
  p.shape = row_shape("adaln_backward", x, scale);
  ModulationGrad scale_grad(modulation, scale, p.shape), shift_grad(modulation, scale, p.shape);
  p.grad_normed = pointer(grad);
  p.x = pointer(x);
  p.scale = rows_of(scale, scale_rows);
  p.mean = pointer(mean);
  p.rstd = pointer(rstd);
  p.grad_x = mutable_pointer(grad_x);
  p.scale_partial = mutable_pointer(scale_grad.partial);
  p.shift_partial = mutable_pointer(shift_grad.partial);
  launch(x, p, segments_of(p.shape) * p.shape.chunks, grain_rows(p.shape.dim * p.shape.chunk_rows),
         ops::adaln_backward, COSMOS_CUDA_KERNEL(adaln_backward_cuda));
  return {grad_x, scale_grad.reduce(), shift_grad.reduce()};
}

at::Tensor gated_residual_forward(const at::Tensor& x_any, const at::Tensor& y_any,
                                  const at::Tensor& gate) {
  check_same("gated_residual", "x", x_any, "y", y_any);
  if (x_any.is_meta()) return rows_like(x_any);
  const at::Tensor x = x_any.contiguous(), y = y_any.contiguous();
  const at::Tensor out = rows_like(x);
  at::Tensor gate_rows;
  GatedResidualForward p{};
  p.shape = row_shape("gated_residual", x, gate);
  p.x = pointer(x);
  p.y = pointer(y);
  p.gate = rows_of(gate, gate_rows);
  p.out = mutable_pointer(out);
  launch(x, p, p.shape.rows, grain_rows(p.shape.dim), ops::gated_residual_forward,
         COSMOS_CUDA_KERNEL(gated_residual_forward_cuda));
  return out;
}

std::tuple<at::Tensor, at::Tensor> gated_residual_backward(const at::Tensor& grad_any,
                                                           const at::Tensor& y_any,
                                                           const at::Tensor& gate,
                                                           bool modulation) {
  check_same("gated_residual_backward", "y", y_any, "grad", grad_any);
  if (y_any.is_meta()) return {rows_like(y_any), modulation_like(modulation, gate)};
  const at::Tensor grad = grad_any.contiguous(), y = y_any.contiguous();
  const at::Tensor grad_y = rows_like(y);
  at::Tensor gate_rows;
  GatedResidualBackward p{};
  p.shape = row_shape("gated_residual_backward", y, gate);
  ModulationGrad gate_grad(modulation, gate, p.shape);
  p.grad = pointer(grad);
  p.y = pointer(y);
  p.gate = rows_of(gate, gate_rows);
  p.grad_y = mutable_pointer(grad_y);
  p.gate_partial = mutable_pointer(gate_grad.partial);
  launch(y, p, segments_of(p.shape) * p.shape.chunks, grain_rows(p.shape.dim * p.shape.chunk_rows),
         ops::gated_residual_backward, COSMOS_CUDA_KERNEL(gated_residual_backward_cuda));
  return {grad_y, gate_grad.reduce()};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gated_residual_adaln_forward(
    const at::Tensor& x_any, const at::Tensor& y_any, const at::Tensor& gate,
    const at::Tensor& scale, const at::Tensor& shift, double eps) {
  check_same("gated_residual_adaln", "x", x_any, "y", y_any);
  if (x_any.is_meta())
    return {rows_like(x_any), rows_like(x_any), statistics_like(x_any), statistics_like(x_any)};
  const at::Tensor x = x_any.contiguous(), y = y_any.contiguous();
  const at::Tensor sum = rows_like(x), normed = rows_like(x);
  const at::Tensor mean = statistics_like(x), rstd = statistics_like(x);
  at::Tensor gate_rows, scale_rows, shift_rows;
  AdaLnForward p{};
  p.shape = row_shape("gated_residual_adaln", x, scale);
  p.x = pointer(x);
  p.y = pointer(y);
  p.gate = rows_of(gate, gate_rows);
  p.scale = rows_of(scale, scale_rows);
  p.shift = rows_of(shift, shift_rows);
  p.eps = eps;
  p.sum = mutable_pointer(sum);
  p.normed = mutable_pointer(normed);
  p.mean = mutable_pointer(mean);
  p.rstd = mutable_pointer(rstd);
  launch(x, p, p.shape.rows, grain_rows(p.shape.dim), ops::adaln_forward,
         COSMOS_CUDA_KERNEL(adaln_forward_cuda));
  return {sum, normed, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
gated_residual_adaln_backward(const std::optional<at::Tensor>& grad_sum_any,
                              const at::Tensor& grad_any, const at::Tensor& sum_any,
                              const at::Tensor& y_any, const at::Tensor& gate,
                              const at::Tensor& scale, const at::Tensor& mean,
                              const at::Tensor& rstd, bool modulation) {
  const char* op = "gated_residual_adaln_backward";
  check_same(op, "sum", sum_any, "grad_normed", grad_any);
  if (sum_any.is_meta())
    return {rows_like(sum_any), rows_like(sum_any), modulation_like(modulation, gate),
            modulation_like(modulation, scale), modulation_like(modulation, scale)};
  const at::Tensor grad = grad_any.contiguous(), sum = sum_any.contiguous();
  const at::Tensor y = y_any.contiguous();
  const at::Tensor grad_x = rows_like(sum), grad_y = rows_like(sum);
  at::Tensor grad_sum, gate_rows, scale_rows;
  if (grad_sum_any && grad_sum_any->defined()) {
    check_same(op, "sum", sum_any, "grad_sum", *grad_sum_any);
    grad_sum = grad_sum_any->contiguous();
  }
  AdaLnBackward p{};
  p.shape = row_shape(op, sum, scale);
  ModulationGrad gate_grad(modulation, gate, p.shape), scale_grad(modulation, scale, p.shape),
      shift_grad(modulation, scale, p.shape);
  p.grad_normed = pointer(grad);
  p.grad_sum = grad_sum.defined() ? pointer(grad_sum) : nullptr;
  p.x = pointer(sum);
  p.y = pointer(y);
  p.gate = rows_of(gate, gate_rows);
  p.scale = rows_of(scale, scale_rows);
  p.mean = pointer(mean);
  p.rstd = pointer(rstd);
  p.grad_x = mutable_pointer(grad_x);
  p.grad_y = mutable_pointer(grad_y);
  p.scale_partial = mutable_pointer(scale_grad.partial);
  p.shift_partial = mutable_pointer(shift_grad.partial);
  p.gate_partial = mutable_pointer(gate_grad.partial);
  launch(sum, p, segments_of(p.shape) * p.shape.chunks,
         grain_rows(p.shape.dim * p.shape.chunk_rows), ops::adaln_backward,
         COSMOS_CUDA_KERNEL(adaln_backward_cuda));
  return {grad_x, grad_y, gate_grad.reduce(), scale_grad.reduce(), shift_grad.reduce()};
}

}  // namespace cosmos::ops::driver
