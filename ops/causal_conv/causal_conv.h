#pragma once

// Causal 3-D convolution of video tokenizers: the output at time t sees no later frame. What stands
// before the first frame is never joined with the clip: a temporal tap that reaches back takes its
// frames from where they are, or none.
//
//   y[b, t, i, j, o] = bias[o] + sum_{k, l, m, c} weight[o, c, k, l, m] z[b, t st + k, i sh + l, j
//   sw + m, c] z = n frames, then x, with `space_pad` zeros around each frame
//
// The n frames are `past`, where given (what a stream kept of the chunk before; may be none), and
// otherwise `front` frames of zeros (Wan) or copies of frame 0 (`repeat_first`, Cosmos).
//
// x: [B, T, H, W, C]; past: [B, n, H, W, C]; weight: [O, C, kt, kh, kw]; bias: [O]; all of one
// dtype (float32, bfloat16, float16, float64) and device.
// Returns [B, (n + T - kt) / st + 1, (H + 2 space_pad - kh) / sh + 1, (W + ...) / sw + 1, O],
// contiguous; no frames where n + T < kt.
//
// On the CPU each tap is the library's product (kernels of 1 x 1 in space) or 2-D convolution of
// channels-last frames, added up; backward keeps x, past and weight, and no padded frames.
// Elsewhere, and in bfloat16 and float16 with larger kernels, one 3-D convolution of the padded
// clip. Products in bfloat16 and float16 round the sum after each tap.
//
// Errors (cosmos::Error): ranks, sizes, dtypes, devices, strides or paddings that do not fit; a
// second derivative.

#include <ATen/core/Tensor.h>
#include <optional>

namespace cosmos::ops {

at::Tensor causal_conv(const at::Tensor& x, const std::optional<at::Tensor>& past,
                       const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride = {1, 1, 1}, int64_t space_pad = 0, int64_t front = 0,
                       bool repeat_first = false);

/// The definition, operation by operation: pad, then one 3-D convolution.
namespace reference {
at::Tensor causal_conv(const at::Tensor& x, const std::optional<at::Tensor>& past,
                       const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride = {1, 1, 1}, int64_t space_pad = 0, int64_t front = 0,
                       bool repeat_first = false);
}  // namespace reference

}  // namespace cosmos::ops
