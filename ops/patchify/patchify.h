#pragma once

// Video or latents as patches, and back: one copy each way.
//
//   patchify     [B, C, T, H, W] -> [B, T/pt, H/ph, W/pw, C pt ph pw]
//   unpatchify   its inverse
//
// patch = {pt, ph, pw}: frames, rows and columns of a patch. The features of a patch lie in one of
// two orders (the first name varies slowest):
//   kChannelsFirst  (C, pt, ph, pw)   what the transformers' patch embedding takes
//   kChannelsLast   (ph, pw, pt, C)   what their output layer gives
//
// Any dtype of 1, 2, 4 or 8 bytes; nothing is computed. patchify reads any strides in place,
// unpatchify copies tokens whose features are not contiguous. Results are contiguous. Each is the
// other's backward and saves nothing, so derivatives of any order exist. Bytes: one read, one
// write. Source: Dosovitskiy et al. 2021 (ViT); the two orders are those of the released Cosmos
// weights.
//
// Errors (cosmos::Error): sizes that do not divide into patches, a dtype that does not fit.

#include <ATen/core/Tensor.h>

namespace cosmos::ops {

enum class PatchOrder { kChannelsFirst, kChannelsLast };

at::Tensor patchify(const at::Tensor& x, at::IntArrayRef patch, PatchOrder order);
at::Tensor unpatchify(const at::Tensor& tokens, at::IntArrayRef patch, PatchOrder order);

/// The definition: views and one permuted copy.
namespace reference {
at::Tensor patchify(const at::Tensor& x, at::IntArrayRef patch, PatchOrder order);
at::Tensor unpatchify(const at::Tensor& tokens, at::IntArrayRef patch, PatchOrder order);
}  // namespace reference

}  // namespace cosmos::ops
