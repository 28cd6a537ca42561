// GELU, SwiGLU and GEGLU against the plain formulas in float64.
#include "ops/core/error.h"
#include "test/ops/activation/activation_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("GELU equals the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(gelu_cases("none"));
  check_cases(gelu_cases("tanh"));
}

TEST_CASE("SwiGLU and GEGLU equal the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(swiglu_cases());
  check_cases(geglu_cases("none"));
  check_cases(geglu_cases("tanh"));
}

TEST_CASE("activation gradients equal central differences", "[ops]") {
  check_gradients(gelu_cases("none"));
  check_gradients(gelu_cases("tanh"));
  check_gradients(swiglu_cases());
  check_gradients(geglu_cases("none"));
  check_gradients(geglu_cases("tanh"));
}

TEST_CASE("GELU is right to half a bfloat16 unit in the lower tail, where 1 + erf loses its digits",
          "[ops]") {
  const at::Tensor x = -at::linspace(0.25, 5.5, 999, at::kFloat);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor exact = wide * 0.5 * at::erfc(wide * -std::sqrt(0.5));
  const at::Tensor error = (ops::gelu(x).to(at::kDouble) - exact).abs() / exact.abs();
  CHECK(error.max().item<double>() < 0x1p-8);
}

TEST_CASE("activations of large numbers, infinity and NaN are the plain formula's", "[ops]") {
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::tensor({0.f, -0.f, 1e-40f, -1e-40f, 90.f, -90.f, 1e10f, -1e10f, 3e38f,
                                   -3e38f, inf, std::nanf("")})
                           .repeat({5});  // vector body and remainder of the loops
  const at::Tensor one = at::ones_like(x), wide = x.to(at::kDouble);
  const auto same = [](const at::Tensor& got, const at::Tensor& want) {
    return at::allclose(got, want.to(at::kFloat), 1e-6, 1e-37, /*equal_nan=*/true);
  };
  CHECK(same(ops::gelu(x), ops::reference::gelu(wide)));
  CHECK(same(ops::gelu(x, "tanh"), ops::reference::gelu(wide, "tanh")));
  CHECK(same(ops::swiglu(x, one), ops::reference::swiglu(wide, one.to(at::kDouble))));
  CHECK(same(ops::geglu(x, one), ops::reference::geglu(wide, one.to(at::kDouble))));
}

TEST_CASE("activations have the same bits for any number of threads and from parts of a tensor",
          "[ops]") {
  torch::manual_seed(5);
  const at::Tensor joint = at::randn({300, 2 * 517}).requires_grad_();
  const auto run = [&](int threads, bool copied) {
    at::set_num_threads(threads);
    auto parts = joint.chunk(2, -1);
    if (copied) parts = {parts[0].contiguous(), parts[1].contiguous()};
    const at::Tensor out = ops::swiglu(parts[0], parts[1]);
    return std::vector<at::Tensor>{out, torch::autograd::grad({out.pow(2).sum()}, {joint})[0]};
  };
  const int before = at::get_num_threads();
  const auto one = run(1, false), two = run(2, false), copied = run(2, true);
  at::set_num_threads(before);
  for (int i = 0; i < 2; ++i) {
    CHECK(at::equal(one[i], two[i]));
    CHECK(mismatch(copied[i], one[i], tolerance(at::kFloat)) == "");
  }
}

TEST_CASE("an activation's gradient reaches the input that wants it alone", "[ops]") {
  const at::Tensor gate = at::randn({4, 6}), up = at::randn({4, 6}).requires_grad_();
  const auto grads = torch::autograd::grad({ops::swiglu(gate, up).sum()}, {up});
  CHECK(at::allclose(grads[0], at::silu(gate), 1e-5, 1e-6));
}

TEST_CASE("activations refuse what does not fit, with expected and got", "[ops]") {
  const at::Tensor gate = at::randn({2, 6}), up = at::randn({2, 5});
  CHECK_THROWS_WITH(ops::swiglu(gate, up),
                    Catch::Contains("up: expected shape [2, 6]") && Catch::Contains("[2, 5]"));
  CHECK_THROWS_WITH(ops::geglu(gate, gate.to(at::kBFloat16)),
                    Catch::Contains("up: expected float32") && Catch::Contains("got bfloat16"));
  CHECK_THROWS_WITH(
      ops::gelu(gate, "sigmoid"),
      Catch::Contains("approximate: expected none or tanh") && Catch::Contains("\"sigmoid\""));
  CHECK_THROWS_AS(ops::gelu(gate.to(at::kInt)), Error);
  CHECK_THROWS_AS(ops::swiglu(at::Tensor(), up), Error);
  const at::Tensor x = at::randn({3}).requires_grad_();
  CHECK_THROWS_WITH(torch::autograd::grad({ops::gelu(x).sum()}, {x}, {}, true, true),
                    Catch::Contains("no second derivative"));
}
