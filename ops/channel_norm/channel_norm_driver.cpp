#include "ops/channel_norm/channel_norm_driver.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <algorithm>

#include "ops/channel_norm/channel_norm_kernel.h"
#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/segment_reduce_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(channel_norm_forward, ChannelNormForward)
COSMOS_SIMD_KERNEL(channel_norm_backward, ChannelNormBackward)
COSMOS_SIMD_KERNEL(segment_reduce, SegmentReduce)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

bool channels_last(const at::Tensor& x) {
  return x.movedim(1, -1).is_contiguous();
}

/// Positions of a tile. Rows: enough of them that the partial gradients cost little. Planes: about
/// 32k elements, which the second walk finds in L2; on CUDA what a block loads at once.
int64_t tile_of(const at::Tensor& x, bool rows) {
  if (rows) return 64;
  if (x.is_cuda()) return 256;
  const int64_t fitting = 32768 / std::max<int64_t>(x.size(1), 1) / 64 * 64;
  return std::clamp<int64_t>(fitting, 64, kMaxChannelTile);
}

ChannelTiles tiles_of(const at::Tensor& x) {
  ChannelTiles shape{};
  shape.dtype = dtype_of("rms_norm_silu", "x", x);
  // One channel is a plane too, and longer.
  shape.rows = channels_last(x) && !(x.size(1) == 1 && x.is_contiguous());
  shape.channels = x.size(1);
  const int64_t all = shape.channels > 0 ? x.numel() / shape.channels : 0;
  shape.batch = shape.rows ? std::min<int64_t>(all, 1) : x.size(0);
  shape.positions = shape.batch > 0 ? all / shape.batch : 0;
  shape.tile = tile_of(x, shape.rows);
  shape.tiles = (shape.positions + shape.tile - 1) / shape.tile;
  return shape;
}

/// A tensor of x's shape in x's layout.
at::Tensor like(const at::Tensor& grad, const at::Tensor& x) {
  if (grad.strides() == x.strides()) return grad;
  return channels_last(x) ? grad.movedim(1, -1).contiguous().movedim(-1, 1) : grad.contiguous();
}

}  // namespace

at::Tensor in_layout(const at::Tensor& x) {
  return x.is_contiguous() || channels_last(x) ? x : x.contiguous();
}

at::Tensor channel_norm_forward(const at::Tensor& x_any, const at::Tensor& gamma, double eps,
                                bool activation) {
  const at::Tensor x = in_layout(x_any);
  const at::Tensor out = at::empty_like(x);
  if (x.is_meta()) return out;
  ChannelNormForward p{};
  p.shape = tiles_of(x);
  p.x = x.const_data_ptr();
  p.gamma = gamma.const_data_ptr();
  p.eps = eps;
  p.activation = activation;
  p.out = out.mutable_data_ptr();
  launch(x, p, p.shape.batch * p.shape.tiles, grain_rows(p.shape.channels * p.shape.tile),
         ops::channel_norm_forward, COSMOS_CUDA_KERNEL(channel_norm_forward_cuda));
  return out;
}

std::tuple<at::Tensor, at::Tensor> channel_norm_backward(const at::Tensor& grad_any,
                                                         const at::Tensor& x_any,
                                                         const at::Tensor& gamma, double eps,
                                                         bool activation, bool gamma_grad) {
  check_same("rms_norm_silu_backward", "x", x_any, "grad", grad_any);
  const at::Tensor x = in_layout(x_any);
  const at::Tensor grad_x = at::empty_like(x);
  const at::Tensor total = gamma_grad ? at::empty_like(gamma) : at::empty({0}, gamma.options());
  if (x.is_meta()) return {grad_x, total};
  const at::Tensor grad = like(grad_any, x);
  ChannelNormBackward p{};
  p.shape = tiles_of(x);
  const int64_t units = p.shape.batch * p.shape.tiles;
  at::Tensor partial;
  if (gamma_grad) partial = at::empty({units, p.shape.channels}, gamma.options());
  p.grad = grad.const_data_ptr();
  p.x = x.const_data_ptr();
  p.gamma = gamma.const_data_ptr();
  p.eps = eps;
  p.activation = activation;
  p.grad_x = grad_x.mutable_data_ptr();
  p.gamma_partial = gamma_grad ? partial.mutable_data_ptr() : nullptr;
  launch(x, p, units, grain_rows(p.shape.channels * p.shape.tile), ops::channel_norm_backward,
         COSMOS_CUDA_KERNEL(channel_norm_backward_cuda));
  if (gamma_grad && units == 0) total.zero_();
  if (gamma_grad && units > 0) {
    const SegmentReduce reduce{dtype_of("rms_norm_silu", "gamma", gamma),
                               1,
                               units,
                               p.shape.channels,
                               partial.const_data_ptr(),
                               total.mutable_data_ptr()};
    launch(x, reduce, 1, 1, ops::segment_reduce, COSMOS_CUDA_KERNEL(segment_reduce_cuda));
  }
  return {grad_x, total};
}

}  // namespace cosmos::ops::driver
