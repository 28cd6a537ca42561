#pragma once

// CPU kernels (*_simd.cpp) are compiled once per instruction set, each copy in its own namespace;
// the best one that this CPU has is called.
//
//   COSMOS_SIMD_KERNEL(adaln_forward, AdaLnForward)
// declares  void adaln_forward(const AdaLnForward& params, int64_t begin, int64_t end)
// for each set and makes a function of that name here that picks one.

#include <cstdint>

namespace cosmos::ops {

enum class Isa { kDefault, kAvx2, kAvx512 };

/// The set in use: the CPU's best, or less where COSMOS_ISA=default|avx2 or set_isa() says so.
Isa isa();
/// For tests and benchmarks. Throws Error when the CPU lacks it.
void set_isa(Isa isa);
/// Does this CPU (and this build) have it?
bool has_isa(Isa isa);

}  // namespace cosmos::ops

#ifdef COSMOS_SIMD_X86
#define COSMOS_SIMD_KERNEL(name, Params)                               \
  namespace isa_default {                                              \
  void name(const Params&, int64_t, int64_t);                          \
  }                                                                    \
  namespace isa_avx2 {                                                 \
  void name(const Params&, int64_t, int64_t);                          \
  }                                                                    \
  namespace isa_avx512 {                                               \
  void name(const Params&, int64_t, int64_t);                          \
  }                                                                    \
  inline void name(const Params& params, int64_t begin, int64_t end) { \
    switch (isa()) {                                                   \
      case Isa::kAvx512:                                               \
        return isa_avx512::name(params, begin, end);                   \
      case Isa::kAvx2:                                                 \
        return isa_avx2::name(params, begin, end);                     \
      case Isa::kDefault:                                              \
        return isa_default::name(params, begin, end);                  \
    }                                                                  \
  }
#else
#define COSMOS_SIMD_KERNEL(name, Params)                               \
  namespace isa_default {                                              \
  void name(const Params&, int64_t, int64_t);                          \
  }                                                                    \
  inline void name(const Params& params, int64_t begin, int64_t end) { \
    isa_default::name(params, begin, end);                             \
  }
#endif
