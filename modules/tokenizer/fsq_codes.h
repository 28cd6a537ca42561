#pragma once

// Latents of the discrete tokenizers: finite scalar quantisation (ops/fsq/fsq.h) of a tensor whose
// channels are the quantised dimensions.

#include <cstdint>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// z: [B, D, t, h, w] -> codes in [-1, 1], same shape and dtype; the gradient passes straight
/// through the rounding. D = levels.size().
Tensor quantize(const Tensor& z, const std::vector<int64_t>& levels);

/// codes [B, D, t, h, w] -> indices [B, t, h, w], int32.
Tensor indices_of(const Tensor& codes, const std::vector<int64_t>& levels);

/// indices [B, t, h, w], whole numbers -> codes [B, D, t, h, w] in `dtype`. Throws Error when an
/// index is none of the codebook's.
Tensor codes_of(const Tensor& indices, const std::vector<int64_t>& levels, torch::Dtype dtype);

/// Throws Error unless every level is at least 2 and the codebook fits 31 bits.
void check_levels(const std::vector<int64_t>& levels, const std::string& where);

}  // namespace cosmos::modules
