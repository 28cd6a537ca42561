#pragma once

// One block of Philox 4x32-10 (Salmon et al., SC 2011): 128 random bits that are a function of key
// and counter alone, the same on CPU and GPU. Straight-line integer code that loops vectorise.
// Internal linkage: see simd.h.

#include <cstdint>

#ifdef __CUDACC__
#define COSMOS_HOST_DEVICE __host__ __device__
#else
#define COSMOS_HOST_DEVICE
#endif

namespace cosmos::ops {
namespace {

struct PhiloxBlock {
  uint32_t word[4];
};

COSMOS_HOST_DEVICE inline PhiloxBlock philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                             uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace
}  // namespace cosmos::ops
