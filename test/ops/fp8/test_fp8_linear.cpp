// The linear layer with float8 operands against the plain formula in float64.
#include "ops/core/error.h"
#include "test/ops/fp8/fp8_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("fp8_linear equals the plain formula with quantised operands", "[ops]") {
  check_cases(fp8_linear_cases());
}

TEST_CASE("fp8_linear is near the linear layer it replaces", "[ops]") {
  torch::manual_seed(1);
  const at::Tensor x = at::randn({256, 512}).requires_grad_();
  const at::Tensor weight = (at::randn({384, 512}) * 0.05).requires_grad_();
  const at::Tensor seed = at::randn({256, 384}) * 1e-6;
  const auto grads = [&](const at::Tensor& y) {
    return torch::autograd::grad({y}, {x, weight}, {seed});
  };
  const auto decibel = [](const at::Tensor& got, const at::Tensor& want) {
    return 20 * std::log10((want.norm() / (got - want).norm()).item<double>());
  };
  const at::Tensor exact = at::matmul(x, weight.t());
  const auto want = grads(exact);
  for (const auto scaling :
       {ops::Fp8Scaling::kTensor, ops::Fp8Scaling::kRow, ops::Fp8Scaling::kBlock}) {
    const at::Tensor y = ops::fp8_linear(x, weight, {}, {scaling});
    const auto got = grads(y);
    INFO("scaling " << static_cast<int>(scaling));
    CHECK(decibel(y.detach(), exact.detach()) > 25);
    CHECK(decibel(got[0], want[0]) > 20);
    CHECK(decibel(got[1], want[1]) > 20);
  }
}

TEST_CASE("fp8_linear gives weight and bias gradients in their own dtype", "[ops]") {
  const at::Tensor x = at::randn({6, 32}).to(at::kBFloat16).requires_grad_();
  const at::Tensor weight = at::randn({16, 32}).requires_grad_();
  const at::Tensor bias = at::randn({16}).requires_grad_();
  const at::Tensor y = ops::fp8_linear(x, weight, bias, {});
  CHECK(y.scalar_type() == at::kBFloat16);
  const auto grads = torch::autograd::grad({y.to(at::kFloat).square().sum()}, {x, weight, bias});
  CHECK(grads[0].scalar_type() == at::kBFloat16);
  CHECK(grads[1].scalar_type() == at::kFloat);
  CHECK(grads[2].scalar_type() == at::kFloat);
}

TEST_CASE("fp8_linear without a weight gradient is the same function", "[ops]") {
  const at::Tensor x = at::randn({6, 32}).requires_grad_(), weight = at::randn({16, 32});
  const at::Tensor seed = at::randn({6, 16});
  const auto grad = [&](const at::Tensor& w) {
    return torch::autograd::grad({ops::fp8_linear(x, w, {}, {})}, {x}, {seed})[0];
  };
  CHECK(at::equal(grad(weight), grad(weight.clone().requires_grad_())));
  const torch::NoGradGuard no_grad;
  const at::Tensor y = ops::fp8_linear(x, weight, {}, {});
  const at::Tensor want = ops::reference::fp8_linear(x, weight, {}, {});
  CHECK(mismatch(y, want, tolerance(at::kFloat)) == "");
}

TEST_CASE("delayed scaling uses the last steps' amax and follows it", "[ops]") {
  torch::manual_seed(3);
  const ops::Fp8Recipe recipe;
  const at::Tensor x = at::randn({40, 64}).requires_grad_();
  const at::Tensor weight = at::randn({32, 64}).requires_grad_();
  const at::Tensor seed = at::randn({40, 32});
  const ops::Fp8Delayed all = ops::fp8_delayed(x, 2, 3);
  const ops::Fp8Delayed layer{all.scale.select(0, 1), all.amax_history.select(0, 1)};
  const auto step = [&] {
    const at::Tensor y = ops::fp8_linear(x, weight, {}, recipe, layer);
    auto grads = torch::autograd::grad({y}, {x, weight}, {seed});
    grads.push_back(y.detach());
    return grads;
  };
  step();
  const at::Tensor newest = layer.amax_history.select(1, 0);
  CHECK(newest[0].item<float>() == x.abs().max().item<float>());
  CHECK(newest[1].item<float>() == weight.abs().max().item<float>());
  CHECK(newest[2].item<float>() == seed.abs().max().item<float>());
  ops::fp8_delayed_advance(all, recipe);
  CHECK(at::equal(all.scale[0], at::ones({3})));  // a layer that saw nothing keeps its scale
  // The same tensors again: the delayed scale is now the current one.
  const auto got = step();
  const at::Tensor y = ops::fp8_linear(x, weight, {}, recipe);
  const auto want = torch::autograd::grad({y}, {x, weight}, {seed});
  CHECK(at::equal(got[2], y.detach()));
  CHECK(at::equal(got[0], want[0]));
  CHECK(at::equal(got[1], want[1]));
  // A step with an infinite amax is passed over; old amaxes leave after `length` steps.
  newest.fill_(INFINITY);
  ops::fp8_delayed_advance(all, recipe);
  CHECK(layer.scale[0].item<float>() == x.abs().max().item<float>() / 448);
  for (int i = 0; i < 3; ++i) {
    newest.fill_(44.8);
    ops::fp8_delayed_advance(all, recipe);
  }
  CHECK(layer.scale[0].item<float>() == 44.8f / 448);
}

TEST_CASE("a history without a scale: current scaling that fills it", "[ops]") {
  const at::Tensor x = at::randn({8, 32}).requires_grad_(), weight = at::randn({16, 32});
  const ops::Fp8Delayed all = ops::fp8_delayed(x, 1, 2);
  const at::Tensor seed = at::randn({8, 16}) * 1e-7;  // below what e5m2 holds without a scale
  const ops::Fp8Delayed first{at::Tensor(), all.amax_history[0]};
  const at::Tensor y = ops::fp8_linear(x, weight, {}, {}, first);
  const at::Tensor want = ops::fp8_linear(x, weight, {}, {});
  CHECK(at::equal(y, want));
  const at::Tensor dx = torch::autograd::grad({y}, {x}, {seed})[0];
  CHECK(at::equal(dx, torch::autograd::grad({want}, {x}, {seed})[0]));
  CHECK(dx.abs().max().item<float>() > 0);
  CHECK(at::equal(all.amax_history[0].select(1, 0),
                  at::stack({x.abs().max(), weight.abs().max(), seed.abs().max()}).detach()));
}

TEST_CASE("a weight that is there in 8 bits alone gives the same bits", "[ops]") {
  torch::manual_seed(4);
  const at::Tensor x = at::randn({9, 160}).requires_grad_(), bias = at::randn({144});
  const at::Tensor weight = at::randn({144, 160}).requires_grad_(), seed = at::randn({9, 144});
  for (const auto scaling : {ops::Fp8Scaling::kTensor, ops::Fp8Scaling::kBlock}) {
    const ops::Fp8Recipe recipe{scaling};
    const auto granularity = scaling == ops::Fp8Scaling::kTensor ? ops::Fp8Granularity::kTensor
                                                                 : ops::Fp8Granularity::k128x128;
    const auto q = ops::fp8_quantize(weight.detach(), {at::kFloat8_e4m3fn, granularity});
    const at::Tensor shape =
        at::full_like(weight, NAN).requires_grad_();  // its numbers are not read
    const at::Tensor y = ops::fp8_linear(x, shape, bias, recipe, {}, {q.values, q.scale});
    const at::Tensor want = ops::fp8_linear(x, weight, bias, recipe);
    CHECK(at::equal(y, want));
    const auto got = torch::autograd::grad({y}, {x, shape}, {seed});
    const auto wanted = torch::autograd::grad({want}, {x, weight}, {seed});
    CHECK(at::equal(got[0], wanted[0]));
    CHECK(at::equal(got[1], wanted[1]));
  }
  const auto q = ops::fp8_quantize(weight.detach(), {});
  CHECK_THROWS_WITH(
      ops::fp8_linear(x, weight, {}, {ops::Fp8Scaling::kRow}, {}, {q.values, q.scale}),
      Catch::Contains("quantised: expected recipe.scaling tensor or block"));
  CHECK_THROWS_WITH(
      ops::fp8_linear(x, weight, {}, {ops::Fp8Scaling::kBlock}, {}, {q.values, q.scale}),
      Catch::Contains("expected a scale of 128x128"));
}

TEST_CASE("fp8_linear has the same bits for any number of threads", "[ops]") {
  torch::manual_seed(5);
  const at::Tensor x = at::randn({700, 300});
  const auto values = [&](int threads) {
    at::set_num_threads(threads);
    return ops::fp8_quantize_pair(x, {});
  };
  const int before = at::get_num_threads();
  const auto one = values(1), two = values(2);
  at::set_num_threads(before);
  CHECK(at::equal(one.values.view(at::kByte), two.values.view(at::kByte)));
  CHECK(at::equal(one.values_t.view(at::kByte), two.values_t.view(at::kByte)));
  CHECK(at::equal(one.scale, two.scale));
}

TEST_CASE("fp8_linear refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::randn({6, 32}), weight = at::randn({16, 32});
  CHECK_THROWS_WITH(ops::fp8_linear(x, at::randn({16, 31}), {}, {}),
                    Catch::Contains("weight: expected [out, 32]") && Catch::Contains("[16, 31]"));
  CHECK_THROWS_WITH(ops::fp8_linear(x, weight, at::randn({15}), {}),
                    Catch::Contains("bias: expected [16]") && Catch::Contains("[15]"));
  CHECK_THROWS_WITH(ops::fp8_linear(x, weight, {}, {ops::Fp8Scaling::kRow, at::kFloat}),
                    Catch::Contains("gradient: expected"));
  const ops::Fp8Delayed state = ops::fp8_delayed(x, 1, 4);
  CHECK_THROWS_WITH(ops::fp8_linear(x, weight, {}, {}, state),
                    Catch::Contains("one layer's scale [3]"));
  CHECK_THROWS_WITH(ops::fp8_linear(x, weight, {}, {ops::Fp8Scaling::kRow},
                                    {state.scale[0], state.amax_history[0]}),
                    Catch::Contains("expected recipe.scaling tensor, got row"));
  const auto q = ops::fp8_quantize(x, {});
  CHECK_THROWS_WITH(ops::fp8_mm(q.values, at::ones({5, 1}), q.values, q.scale, at::kFloat),
                    Catch::Contains("scale: expected") && Catch::Contains("[5, 1]"));
}
