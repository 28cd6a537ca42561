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

TEST_CASE("rotation without weight keeps what attention computes from distances", "[ops]") {
  // Rotated q and k of equal distance have equal products: RoPE's defining property.
  const at::Tensor q = at::randn({1, 1, 1, 8}).expand({1, 6, 1, 8});
  const at::Tensor k = at::randn({1, 1, 1, 8}).expand({1, 6, 1, 8});
  const at::Tensor angle = at::arange(6).unsqueeze(1) * at::rand({4});
  for (const bool interleaved : {false, true}) {
    const auto turned = [&](const at::Tensor& x) {
      return ops::rms_norm_rope(x, std::nullopt, angle.cos(), angle.sin(), 0, interleaved)
          .view({6, 8});
    };
    const at::Tensor scores = turned(q).matmul(turned(k).t());
    for (int64_t distance = 0; distance < 5; ++distance) {
      const at::Tensor line = scores.diagonal(distance);
      CHECK((line - line[0]).abs().max().item<double>() < 1e-5);
    }
  }
}

TEST_CASE("a rotation alone keeps nothing of x for backward", "[ops]") {
  const at::Tensor x = at::randn({1, 5, 2, 8}).requires_grad_();
  const at::Tensor table = at::randn({5, 4});
  const at::Tensor out = ops::rms_norm_rope(x, std::nullopt, table, table, 0);
  const torch::NoGradGuard no_grad;
  x.fill_(NAN);  // a gradient that read x would be NaN, and autograd would refuse a saved x
  const auto grad = torch::autograd::grad({out}, {x}, {at::ones_like(out)});
  CHECK(grad[0].isfinite().all().item<bool>());
}

TEST_CASE("mRoPE tables give every frequency its axis", "[ops]") {
  const at::Tensor ids = at::randint(0, 5000, {3, 2, 7}, at::kLong);
  // Each axis by itself, [3, B, L, head_dim / 2], then columns picked as the models do.
  const at::Tensor frequency = at::pow(1e6, at::arange(0, 32, 2, at::kFloat) / 32).reciprocal();
  const at::Tensor angle = ids.to(at::kFloat).unsqueeze(-1) * frequency;
  const auto same = [](const std::tuple<at::Tensor, at::Tensor>& got, const at::Tensor& want) {
    return at::equal(std::get<0>(got), want.cos()) && at::equal(std::get<1>(got), want.sin());
  };
  const at::Tensor sections = at::cat(
      {angle[0].narrow(-1, 0, 4), angle[1].narrow(-1, 4, 7), angle[2].narrow(-1, 11, 5)}, -1);
  CHECK(same(ops::mrope_tables(ids, 1e6, 32, {4, 7, 5}), sections));
  const at::Tensor turns = angle[0].clone();  // of 16 frequencies: height 4, width 3
  for (const int64_t j : {1, 4, 7, 10}) turns.select(-1, j).copy_(angle[1].select(-1, j));
  for (const int64_t j : {2, 5, 8}) turns.select(-1, j).copy_(angle[2].select(-1, j));
  CHECK(same(ops::mrope_tables(ids, 1e6, 32, {9, 4, 3}, /*interleaved=*/true), turns));
  CHECK_THROWS_WITH(ops::mrope_tables(ids, 1e6, 32, {4, 4, 4}),
                    Catch::Contains("add to head_dim / 2 = 16"));
  CHECK_THROWS_WITH(ops::mrope_tables(ids[0], 1e6, 32, {4, 7, 5}),
                    Catch::Contains("expected integers [3, B, L]"));
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
  CHECK_THROWS_WITH(
      ops::rms_norm_rope(x, weight, at::ones({6, 5}), at::ones({6, 5}), 1e-6),
      Catch::Contains("cos: expected [6, 4]") && Catch::Contains("got float32 [6, 5]"));
  CHECK_THROWS_WITH(ops::rms_norm_rope(x, weight, at::ones({3, 6, 4}), table, 1e-6),
                    Catch::Contains("one for each of 2 samples") && Catch::Contains("[3, 6, 4]"));
  CHECK_THROWS_WITH(ops::rms_norm_rope(x, weight, table, at::ones({6, 2}), 1e-6),
                    Catch::Contains("sin: expected [6, 4] as cos"));
  CHECK_THROWS_AS(ops::rms_norm(x.to(at::kInt), weight, 1e-6), Error);
}
