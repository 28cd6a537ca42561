#include "ops/core/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "ops/core/error.h"

namespace cosmos::ops {
namespace {

Isa isa_from_environment() {
  const Isa best = has_isa(Isa::kAvx512) ? Isa::kAvx512
                   : has_isa(Isa::kAvx2) ? Isa::kAvx2
                                         : Isa::kDefault;
  const char* value = std::getenv("COSMOS_ISA");
  if (!value || !*value) return best;
  const std::string name = value;
  const Isa wanted = name == "avx512" ? Isa::kAvx512 : name == "avx2" ? Isa::kAvx2 : Isa::kDefault;
  require(wanted != Isa::kDefault || name == "default",
          "environment variable COSMOS_ISA: expected default, avx2 or avx512, got ", name);
  return wanted < best ? wanted : best;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> value(isa_from_environment());
  return value;
}

}  // namespace

Isa isa() {
  return current().load(std::memory_order_relaxed);
}

void set_isa(Isa isa) {
  require(has_isa(isa), "set_isa: this CPU lacks the instruction set asked for");
  current().store(isa, std::memory_order_relaxed);
}

bool has_isa(Isa isa) {
#ifdef COSMOS_SIMD_X86
  switch (isa) {
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kDefault:
      return true;
  }
#endif
  return isa == Isa::kDefault;
}

}  // namespace cosmos::ops
