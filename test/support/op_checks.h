#pragma once

// The two test bodies that every operator's case list goes through.

#include <catch2/catch.hpp>
#include <torch/cuda.h>

#include "ops/core/isa.h"
#include "test/support/op_case.h"

namespace cosmos::test {

/// Every case and dtype on the GPU, where there is one, against the plain formula in float64.
inline void check_on_gpu(const std::vector<OpCase>& cases) {
  if (torch::cuda::device_count() == 0) return;
  for (const OpCase& c : cases) {
    if (c.benchmark) continue;
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
      INFO(c.name << ", " << dtype << ", GPU");
      CHECK(compare(c, dtype, at::kCUDA) == "");
    }
  }
}

/// Every case, dtype and instruction set against the plain formula in float64; then on the GPU.
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
  check_on_gpu(cases);
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
