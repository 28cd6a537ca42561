#include "ops/rms_norm/rms_norm_driver.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/segment_reduce_kernel.h"
#include "ops/rms_norm/rms_norm_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(rms_norm_forward, RmsNormForward)
COSMOS_SIMD_KERNEL(rms_norm_backward, RmsNormBackward)
COSMOS_SIMD_KERNEL(segment_reduce, SegmentReduce)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

HeadShape head_shape(const at::Tensor& x, const std::optional<at::Tensor>& table,
                     bool interleaved) {
  require(x.dim() == 4, "rms_norm: x: expected [B, L, heads, d], got ", x.sizes());
  HeadShape shape;
  shape.dtype = dtype_of("rms_norm", "x", x);
  shape.batch = x.size(0);
  shape.length = x.size(1);
  shape.heads = x.size(2);
  shape.dim = x.size(3);
  if (table) {
    shape.rotation = interleaved ? Rotation::kInterleaved : Rotation::kHalves;
    shape.pairs = table->size(-1);
    shape.table_batch_stride = table->dim() == 3 ? shape.length * shape.pairs : 0;
  }
  // About 256 rows a partial sum, whatever the number of heads.
  shape.chunk_tokens = 1 + 255 / (shape.heads > 0 ? shape.heads : 1);
  return shape;
}

/// In place when d is contiguous, otherwise through the copy in `holder`.
HeadView head_view(const at::Tensor& x, at::Tensor& holder) {
  holder = x.stride(3) == 1 || x.size(3) == 1 ? x : x.contiguous();
  return {holder.const_data_ptr(), holder.stride(0), holder.stride(1), holder.stride(2)};
}

const void* pointer(const at::Tensor& x) {
  return x.const_data_ptr();
}

}  // namespace

at::Tensor rms_norm_forward(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& cos,
                            const std::optional<at::Tensor>& sin, double eps, bool interleaved) {
  if (x.is_meta()) return at::empty_symint(x.sym_sizes(), x.options());
  RmsNormForward p{};
  at::Tensor x_rows;
  p.shape = head_shape(x, cos, interleaved);
  const at::Tensor out = at::empty(x.sizes(), x.options());
  p.x = head_view(x, x_rows);
  // Ones keep the kernels at one loop; a head of them stays in registers or L1.
  const at::Tensor factor =
      weight ? *weight : at::ones({p.shape.dim}, x.options().dtype(accumulate_dtype(x)));
  p.norm = weight.has_value();
  p.weight = pointer(factor);
  p.cos = cos ? pointer(*cos) : nullptr;
  p.sin = sin ? pointer(*sin) : nullptr;
  p.eps = eps;
  p.out = out.mutable_data_ptr();
  launch(x, p, x.numel() > 0 ? p.shape.batch * p.shape.length : 0,
         grain_rows(p.shape.heads * p.shape.dim), ops::rms_norm_forward,
         COSMOS_CUDA_KERNEL(rms_norm_forward_cuda));
  return out;
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const at::Tensor& weight,
                                                     const std::optional<at::Tensor>& cos,
                                                     const std::optional<at::Tensor>& sin,
                                                     double eps, bool interleaved,
                                                     bool weight_grad) {
  check_same("rms_norm_backward", "x", x, "grad", grad);
  if (x.is_meta())
    return {at::empty_symint(x.sym_sizes(), x.options()),
            weight_grad ? at::empty_symint(weight.sym_sizes(), weight.options())
                        : at::empty({0}, weight.options())};
  RmsNormBackward p{};
  at::Tensor x_rows, grad_rows;
  p.shape = head_shape(x, cos, interleaved);
  const int64_t tokens = x.numel() > 0 ? p.shape.batch * p.shape.length : 0;
  const int64_t chunks = (tokens + p.shape.chunk_tokens - 1) / p.shape.chunk_tokens;
  const at::Tensor grad_x = at::empty(x.sizes(), x.options());
  const at::Tensor total =
      at::empty(weight_grad ? weight.sizes() : at::IntArrayRef{0}, weight.options());
  at::Tensor partial;
  if (weight_grad) partial = at::empty({chunks, p.shape.dim}, weight.options());
  p.grad = head_view(grad, grad_rows);
  p.x = head_view(x, x_rows);
  p.weight = pointer(weight);
  p.cos = cos ? pointer(*cos) : nullptr;
  p.sin = sin ? pointer(*sin) : nullptr;
  p.eps = eps;
  p.grad_x = grad_x.mutable_data_ptr();
  p.weight_partial = partial.defined() ? partial.mutable_data_ptr() : nullptr;
  launch(x, p, chunks, grain_rows(p.shape.heads * p.shape.dim * p.shape.chunk_tokens),
         ops::rms_norm_backward, COSMOS_CUDA_KERNEL(rms_norm_backward_cuda));
  if (weight_grad && chunks == 0) total.zero_();
  if (weight_grad && chunks > 0) {
    const SegmentReduce reduce{dtype_of("rms_norm", "weight", weight),
                               1,
                               chunks,
                               p.shape.dim,
                               partial.const_data_ptr(),
                               total.mutable_data_ptr()};
    launch(x, reduce, 1, 1, ops::segment_reduce, COSMOS_CUDA_KERNEL(segment_reduce_cuda));
  }
  return {grad_x, total};
}

}  // namespace cosmos::ops::driver
