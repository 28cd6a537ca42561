#pragma once

// Initial noise for generation.

#include <cstdint>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// The numbers of numpy.random.RandomState(seed).standard_normal(shape), cast to float32: what
/// NVIDIA's Cosmos code starts from, so that a seed gives the clip it gives there. Mersenne
/// Twister, 53-bit doubles, Marsaglia's polar method; of a pair the second number comes out first.
Tensor numpy_normal(uint32_t seed, at::IntArrayRef shape);

}  // namespace cosmos::modules
