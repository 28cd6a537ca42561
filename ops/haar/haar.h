#pragma once

// Space-time patches by the 3-D Haar transform, and back: the first and last step of the Cosmos
// tokenizers, each in one pass.
//
//   haar_patch    each p x p x p block of samples -> p³ bands, log2(p) levels. A level averages or
//                 differences pairs along t, h and w and divides by 2 per axis:
//                 band = sum over the block of (+-1) sample / p³.
//   haar_unpatch  the inverse: sample = sum over the bands of (+-1) band.
//
// Channels of a patch are band-major, (band, c). A band's number has one digit base 8 a level, the
// last level's first; a digit is (t, h, w), 1 for "high". `first` is for the chunk with which a
// clip starts: frame 0 then stands p times, and only one of the copies comes back.
//
// video: [B, C, T, H, W], patches: [B, T', H / p, W / p, p³ C], both contiguous (others are copied)
//   T' = T / p, or (T - 1) / p + 1 when `first`
// p: a power of two; 2 and 4 have kernels, others run the plain formula.
// float32, bfloat16, float16 (float64 on the CPU); sums in float32 (float64 for float64).
//
// Saved for backward: nothing. Both are linear and, up to the scale p³, transposes of each other:
// each is the other's backward, to any order. Passes over the video: 2, both ways.
// Source: Haar (1910); the patcher of Cosmos-Tokenizer (NVIDIA, 2024) with patch_method "haar".
//
// Errors (cosmos::Error): a patch size, shape or dtype that does not fit, with expected and got.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

at::Tensor haar_patch(const at::Tensor& video, int64_t patch_size, bool first = false);
at::Tensor haar_unpatch(const at::Tensor& patches, int64_t patch_size, bool first = false);

/// The definition, as one matrix product a block. `front`: 0, 1 (`first`) or 2, see HaarFront in
/// haar_kernel.h; the result is multiplied by `scale`.
namespace reference {
at::Tensor haar_patch(const at::Tensor& video, int64_t patch_size, int64_t front = 0,
                      double scale = 1);
at::Tensor haar_unpatch(const at::Tensor& patches, int64_t patch_size, int64_t front = 0,
                        double scale = 1);
}  // namespace reference

}  // namespace cosmos::ops
