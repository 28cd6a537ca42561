#pragma once

// The two test bodies that every operator's case list goes through.

#include <catch2/catch.hpp>

#include "ops/core/isa.h"
#include "test/support/op_case.h"

namespace cosmos::test {

/// Every case, dtype and instruction set against the plain formula in float64.
inline void check_cases(const std::vector<OpCase>& cases) {
  const ops::Isa best = ops::isa();
  for (const ops::Isa isa : {ops::Isa::kDefault, ops::Isa::kAvx2, ops::Isa::kAvx512}) {
    if (!ops::has_isa(isa)) continue;
    ops::set_isa(isa);
    for (const OpCase& c : cases) {
      if (c.benchmark) continue;
      for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
        INFO(c.name << ", " << dtype << ", instruction set " << static_cast<int>(isa));
        CHECK(compare(c, dtype) == "");
      }
    }
  }
  ops::set_isa(best);
}

/// The small cases against central differences.
inline void check_gradients(const std::vector<OpCase>& cases) {
  for (const OpCase& c : cases) {
    if (!c.gradcheck) continue;
    INFO(c.name);
    torch::manual_seed(3);
    CHECK(gradcheck(c.fused, c.inputs()) == "");
  }
}

}  // namespace cosmos::test
