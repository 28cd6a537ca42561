#pragma once

// What the CPU loops share. Included by *_simd.cpp only, which are compiled once per instruction
// set with COSMOS_ISA naming the namespace of that copy. Everything here has internal linkage: two
// copies of one inline function with different instruction sets must never be merged by the linker.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/core/dtype.h"
#include "ops/core/float16_bits.h"

#ifndef COSMOS_ISA
#error "ops/core/simd.h is for *_simd.cpp, which CMake compiles with COSMOS_ISA"
#endif

namespace cosmos::ops {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

/// Type in which sums and formulas are computed.
template <typename T>
struct AccumulateType {
  using type = float;
};
template <>
struct AccumulateType<double> {
  using type = double;
};
template <typename T>
using Acc = typename AccumulateType<T>::type;

inline float load(const float& x) {
  return x;
}
inline double load(const double& x) {
  return x;
}
inline float load(const BFloat16& x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline float load(const Float16& x) {
  return float16_to_float(x.bits);
}

inline void store(float& to, float x) {
  to = x;
}
inline void store(double& to, double x) {
  to = x;
}
inline void store(BFloat16& to, float x) {
  // Round to nearest, ties to even; NaN stays NaN.
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}
inline void store(Float16& to, float x) {
  to.bits = float_to_float16(x);
}

/// sum of term(i), i < n. Four streams, each a vector accumulator, so that additions overlap.
template <typename A, typename Term>
inline A sum_of(int64_t n, Term term) {
  const int64_t q = n / 4;
  A a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t i = 0; i < q; ++i) {
    a += term(i);
    b += term(i + q);
    c += term(i + 2 * q);
    d += term(i + 3 * q);
  }
  for (int64_t i = 4 * q; i < n; ++i) a += term(i);
  return (a + b) + (c + d);
}

/// Calls fn with a null pointer of the element type that `dtype` names.
template <typename Fn>
inline void visit_dtype(DType dtype, Fn fn) {
  switch (dtype) {
    case DType::kFloat32:
      return fn(static_cast<float*>(nullptr));
    case DType::kFloat64:
      return fn(static_cast<double*>(nullptr));
    case DType::kBFloat16:
      return fn(static_cast<BFloat16*>(nullptr));
    case DType::kFloat16:
      return fn(static_cast<Float16*>(nullptr));
  }
}

}  // namespace
}  // namespace cosmos::ops
