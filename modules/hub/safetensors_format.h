#pragma once

// Numbers of the safetensors format that reading and writing share.

#include <bit>
#include <cstdint>

namespace cosmos::modules {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

inline constexpr uint64_t kLengthBytes = 8;  // in front of the header
inline constexpr uint64_t kMaxHeaderBytes =
    100'000'000;  // the limit of the reference implementation

}  // namespace cosmos::modules
