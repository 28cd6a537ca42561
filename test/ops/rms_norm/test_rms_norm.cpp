// RMSNorm, and per-head RMSNorm + RoPE, against the plain formula in float64.
#include "ops/core/error.h"
#include "test/ops/rms_norm/rms_norm_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("RMSNorm equals the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(rms_norm_cases());
}

TEST_CASE("RMSNorm with RoPE equals the plain formula in every dtype and instruction set",
          "[ops]") {
  check_cases(rms_norm_rope_cases());
}

TEST_CASE("RMSNorm gradients equal central differences", "[ops]") {
  check_gradients(rms_norm_cases());
  check_gradients(rms_norm_rope_cases());
}

TEST_CASE("RMSNorm with RoPE gives attention what it takes without a copy", "[ops]") {
  const at::Tensor x = at::randn({2, 6, 4 * 8}).view({2, 6, 4, 8});
  const at::Tensor table = at::randn({6, 4});
  const at::Tensor out = ops::rms_norm_rope(x, at::ones({8}), table, table, 1e-5);
  CHECK(out.is_contiguous());
  CHECK(out.transpose(1, 2).stride(-1) == 1);
}

TEST_CASE("RMSNorm gradients have the same bits for any number of threads", "[ops]") {
  torch::manual_seed(5);
  const at::Tensor x = at::randn({1, 700, 8, 64}).requires_grad_();
  const at::Tensor weight = at::randn({64}).requires_grad_();
  const auto grads = [&](int threads) {
    at::set_num_threads(threads);
    return torch::autograd::grad({ops::rms_norm(x, weight, 1e-5).pow(2).sum()}, {x, weight});
  };
  const int before = at::get_num_threads();
  const auto one = grads(1), two = grads(2);
  at::set_num_threads(before);
  CHECK(at::equal(one[0], two[0]));
  CHECK(at::equal(one[1], two[1]));
}

TEST_CASE("a float32 weight serves bfloat16 rows and keeps its own precision", "[ops]") {
  const at::Tensor x = at::randn({3, 16}).to(at::kBFloat16).requires_grad_();
  const at::Tensor weight = at::randn({16}).requires_grad_();
  const at::Tensor out = ops::rms_norm(x, weight, 1e-6);
  CHECK(out.scalar_type() == at::kBFloat16);
  const auto grads = torch::autograd::grad({out.to(at::kFloat).sum()}, {weight});
  CHECK(grads[0].scalar_type() == at::kFloat);
}

TEST_CASE("RMSNorm refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::randn({2, 6, 4, 8}), weight = at::ones({8}), table = at::ones({6, 4});
  CHECK_THROWS_WITH(ops::rms_norm(x, at::ones({4}), 1e-6),
                    Catch::Contains("weight: expected [8]") && Catch::Contains("got float32 [4]"));
  CHECK_THROWS_WITH(ops::rms_norm_rope(x, weight, at::ones({5, 4}), table, 1e-6),
                    Catch::Contains("cos: expected [6, 4]") && Catch::Contains("[5, 4]"));
  CHECK_THROWS_WITH(ops::rms_norm_rope(x.view({2, 6, 32}), weight, table, table, 1e-6),
                    Catch::Contains("rms_norm_rope"));
  CHECK_THROWS_AS(ops::rms_norm(x.to(at::kInt), weight, 1e-6), Error);
}
