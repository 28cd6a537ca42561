// AdaLN and gated residual against the plain formula in float64, on shapes that hurt.
#include "ops/core/error.h"
#include "ops/core/path.h"
#include "test/ops/norm/adaln_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("AdaLN operators equal the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(adaln_cases());
}

TEST_CASE("AdaLN gradients equal central differences", "[ops]") {
  check_gradients(adaln_cases());
}

TEST_CASE("AdaLN gradients have the same bits for any number of threads", "[ops]") {
  torch::manual_seed(5);
  const at::Tensor x = at::randn({1, 4, 300, 64}).requires_grad_(), y = at::randn({1, 4, 300, 64});
  const at::Tensor m = at::randn({1, 4, 1, 64}).requires_grad_();
  const auto grads = [&](int threads) {
    at::set_num_threads(threads);
    auto [sum, normed] = ops::gated_residual_adaln(x, y, m, m, m, 1e-6);
    return torch::autograd::grad({(sum * normed).sum()}, {x, m});
  };
  const int before = at::get_num_threads();
  const auto one = grads(1), two = grads(2);
  at::set_num_threads(before);
  CHECK(at::equal(one[0], two[0]));
  CHECK(at::equal(one[1], two[1]));
}

TEST_CASE("a fused output that nobody uses, and frozen modulation, cost no gradient", "[ops]") {
  const at::Tensor x = at::randn({1, 2, 3, 8}).requires_grad_(), y = at::randn({1, 2, 3, 8});
  const at::Tensor m = at::randn({1, 2, 1, 8});
  auto [sum, normed] = ops::gated_residual_adaln(x, y, m, m, m, 1e-6);
  const auto only_sum = torch::autograd::grad({sum.sum()}, {x}, {}, true);
  CHECK(at::equal(only_sum[0], at::ones_like(x)));
  const auto only_normed = torch::autograd::grad({(normed * normed).sum()}, {x});
  const at::Tensor plain =
      ops::reference::adaln(ops::reference::gated_residual(x, y, m), m, m, 1e-6);
  const auto wanted = torch::autograd::grad({(plain * plain).sum()}, {x});
  CHECK(mismatch(only_normed[0], wanted[0], tolerance(at::kFloat)) == "");
}

TEST_CASE("COSMOS_OPS=reference has a second derivative, the fused path says so", "[ops]") {
  const at::Tensor x = at::randn({2, 3, 4}).requires_grad_();
  const at::Tensor m = at::randn({2, 1, 4});
  const auto second = [&] {
    const auto first = torch::autograd::grad({ops::adaln(x, m, m, 1e-6).pow(2).sum()}, {x}, {},
                                             std::nullopt, /*create_graph=*/true);
    return torch::autograd::grad({first[0].pow(2).sum()}, {x})[0];
  };
  CHECK_THROWS_WITH(second(), Catch::Contains("no second derivative"));
  ops::set_path(ops::Path::kReference);
  CHECK(second().sizes() == x.sizes());
  ops::set_path(ops::Path::kFused);
}

TEST_CASE("AdaLN refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::randn({2, 3, 5, 8}), m = at::randn({2, 3, 1, 8});
  CHECK_THROWS_WITH(ops::adaln(x, at::randn({2, 1, 5, 8}), m, 1e-6),
                    Catch::Contains("adaln: shift: expected shape [2, 3, 5, 8] as scale"));
  CHECK_THROWS_WITH(
      ops::adaln(x, at::randn({2, 8}), m, 1e-6),
      Catch::Contains("adaln: scale: expected x's rank") && Catch::Contains("got float32 [2, 8]"));
  CHECK_THROWS_WITH(ops::adaln(x, at::randn({2, 4, 1, 8}), m, 1e-6),
                    Catch::Contains("[2, 4, 1, 8]"));
  CHECK_THROWS_WITH(ops::adaln(x, m.to(at::kBFloat16), m, 1e-6),
                    Catch::Contains("scale: expected float32 on cpu as x, got bfloat16"));
  CHECK_THROWS_WITH(ops::adaln(x.to(at::kLong), m, m, 1e-6), Catch::Contains("got Long"));
  CHECK_THROWS_WITH(ops::gated_residual(x, at::randn({2, 3, 5, 4}), m),
                    Catch::Contains("y: expected shape [2, 3, 5, 8] as x, got [2, 3, 5, 4]"));
  CHECK_THROWS_AS(ops::adaln(at::Tensor(), m, m, 1e-6), Error);
}

TEST_CASE("AdaLN runs on meta tensors without data", "[ops]") {
  const at::Tensor x = at::empty({2, 3, 5, 8}, at::kMeta), m = at::empty({2, 3, 1, 8}, at::kMeta);
  CHECK(ops::adaln(x, m, m, 1e-6).sizes() == x.sizes());
  CHECK(std::get<1>(ops::gated_residual_adaln(x, x, m, m, m, 1e-6)).is_meta());
}
