// The vectorised functions against libm in float64, at every 1009th float, from the smallest to
// NaN.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/core/isa.h"
#include "test/ops/core/simd_math_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(simd_math, SimdMath)
}

using namespace cosmos::ops;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Function {
  const char* name;
  SimdFunction id;
  double (*exact)(double);
  double units;                             ///< bound of the error, in units in the last place
  float from = -kInfinity, to = kInfinity;  ///< where the bound holds; NaN is always checked
};

const std::vector<Function>& functions() {
  static const std::vector<Function> all = {
      {"exp", SimdFunction::kExp, [](double x) { return std::exp(x); }, 2},
      {"exp_nonpositive", SimdFunction::kExpNonpositive, [](double x) { return std::exp(x); }, 2,
       -87, 0},
      {"exp2_nonpositive", SimdFunction::kExp2Nonpositive, [](double x) { return std::exp2(x); }, 2,
       -126, 0},
      {"sigmoid", SimdFunction::kSigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, 3, -87},
      {"tanh", SimdFunction::kTanh, [](double x) { return std::tanh(x); }, 2},
      {"normal_tail", SimdFunction::kNormalTail,
       [](double x) { return 0.5 * std::erfc(x * std::sqrt(0.5)); }, 16, 0, 2},
      {"erf", SimdFunction::kErf, [](double x) { return std::erf(x); }, 2},
      {"log", SimdFunction::kLog, [](double x) { return std::log(x); }, 2},
  };
  return all;
}

/// Distance in units in the last place of a float of exact's size. Infinity counts as 2^128, which
/// is the value that overflowing results round from.
double error_units(float got, double exact) {
  if (std::isnan(exact) || std::isnan(got))
    return std::isnan(exact) && std::isnan(got) ? 0 : kInfinity;
  const auto bounded = [](double x) { return std::fmax(std::fmin(x, 0x1p128), -0x1p128); };
  const double want = bounded(exact);
  if (static_cast<float>(want) == got) return 0;
  const int exponent = want == 0 ? -126 : std::max(std::min(std::ilogb(want), 127), -126);
  return std::fabs(bounded(got) - want) / std::ldexp(1., exponent - 23);
}

std::vector<float> evaluate(SimdFunction id, const std::vector<float>& x) {
  std::vector<float> out(x.size());
  simd_math({id, x.data(), out.data()}, 0, static_cast<int64_t>(x.size()));
  return out;
}

struct Worst {
  double units = 0;
  float x = 0, got = 0;
};

/// The largest error over every `step`-th bit pattern.
Worst worst_error(const Function& f, uint64_t step) {
  constexpr std::size_t kBatch = 4099;  // odd: loops have a remainder
  Worst worst;
  std::vector<float> x;
  for (uint64_t bits = 0; bits < 1ull << 32;) {
    x.clear();
    for (; bits < 1ull << 32 && x.size() < kBatch; bits += step) {
      const uint32_t pattern = static_cast<uint32_t>(bits);
      float value;
      std::memcpy(&value, &pattern, sizeof(value));
      if (std::isnan(value) || (value >= f.from && value <= f.to)) x.push_back(value);
    }
    const std::vector<float> got = evaluate(f.id, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double units = error_units(got[i], f.exact(x[i]));
      if (units > worst.units) worst = {units, x[i], got[i]};
    }
  }
  return worst;
}

void check_all(uint64_t step) {
  const Isa best = isa();
  for (const Isa set : {Isa::kDefault, Isa::kAvx2, Isa::kAvx512}) {
    if (!has_isa(set)) continue;
    set_isa(set);
    for (const Function& f : functions()) {
      const Worst worst = worst_error(f, step);
      INFO(f.name << "(" << worst.x << ") = " << worst.got << ", instruction set "
                  << static_cast<int>(set) << ", worst error " << worst.units);
      CHECK(worst.units <= f.units);
    }
  }
  set_isa(best);
}

}  // namespace

TEST_CASE("vectorised functions are within their bounds of libm over the range of floats",
          "[ops]") {
  check_all(1009);
}

TEST_CASE("vectorised functions at the ends of the floats are libm's", "[ops]") {
  const std::vector<float> x = {0.f,   -0.f,   1e-45f,    -1e-45f,    89.f, -104.f,
                                1e30f, -1e30f, kInfinity, -kInfinity, kNan, -1.f};
  const auto check = [&](SimdFunction id, float (*exact)(float)) {
    const std::vector<float> got = evaluate(id, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float want = exact(x[i]);
      INFO("function " << static_cast<int>(id) << " of " << x[i] << ": " << got[i]);
      CHECK(std::isnan(got[i]) == std::isnan(want));
      if (std::isnan(want)) continue;
      CHECK(got[i] == Approx(want).epsilon(1e-6));
      CHECK(std::signbit(got[i]) == std::signbit(want));
    }
  };
  check(SimdFunction::kExp, [](float y) { return std::exp(y); });
  check(SimdFunction::kTanh, [](float y) { return std::tanh(y); });
  check(SimdFunction::kErf, [](float y) { return std::erf(y); });
  check(SimdFunction::kLog, [](float y) { return std::log(y); });
  CHECK(evaluate(SimdFunction::kSigmoid, {-kInfinity, -88, kInfinity}) ==
        std::vector<float>{0, 0, 1});
  CHECK(evaluate(SimdFunction::kExpNonpositive, {-kInfinity, -1e30f, -88, -0.f}) ==
        std::vector<float>{0, 0, 0, 1});
}
