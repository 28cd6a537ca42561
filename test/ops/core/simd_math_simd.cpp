#include "ops/core/simd_math.h"
#include "test/ops/core/simd_math_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename Fn>
void apply(const SimdMath& p, int64_t begin, int64_t end, Fn fn) {
  const float* x = p.x;
  float* out = p.out;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) out[i] = fn(x[i]);
}

}  // namespace

void simd_math(const SimdMath& p, int64_t begin, int64_t end) {
  switch (p.function) {
    case SimdFunction::kExp:
      return apply(p, begin, end, [](float x) { return simd::exp(x); });
    case SimdFunction::kExpNonpositive:
      return apply(p, begin, end, [](float x) { return simd::exp_nonpositive(x); });
    case SimdFunction::kExp2Nonpositive:
      return apply(p, begin, end, [](float x) { return simd::exp2_nonpositive(x); });
    case SimdFunction::kSigmoid:
      return apply(p, begin, end, [](float x) { return simd::sigmoid(x); });
    case SimdFunction::kTanh:
      return apply(p, begin, end, [](float x) { return simd::tanh(x); });
    case SimdFunction::kNormalTail:
      return apply(p, begin, end, [](float x) { return simd::normal_tail(x); });
    case SimdFunction::kErf:
      return apply(p, begin, end, [](float x) { return simd::erf(x); });
    case SimdFunction::kLog:
      return apply(p, begin, end, [](float x) { return simd::log(x); });
  }
}

}  // namespace cosmos::ops::COSMOS_ISA
