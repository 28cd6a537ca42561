// Linear with a low-rank update against the plain formula in float64.
#include <ATen/Parallel.h>

#include "ops/core/error.h"
#include "test/ops/lora_linear/lora_linear_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

namespace {

struct Layer {
  at::Tensor x = at::randn({4, 33, 24}).requires_grad_();
  at::Tensor weight = at::randn({40, 24}), bias = at::randn({40});
  at::Tensor a = at::randn({8, 24}).requires_grad_(), b = at::randn({40, 8}).requires_grad_();

  at::Tensor forward(double dropout = 0, std::vector<int64_t> seeds = {}) const {
    return ops::lora_linear(x, weight, bias, {a, b, 0.5, dropout, std::move(seeds)});
  }
};

}  // namespace

TEST_CASE("LoRA's linear equals the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(lora_linear_cases());
}

TEST_CASE("LoRA's linear has the gradients of central differences", "[ops]") {
  check_gradients(lora_linear_cases());
}

TEST_CASE("An update of zero leaves the linear's bits", "[ops]") {
  Layer layer;
  layer.b.detach().zero_();
  CHECK(at::equal(layer.forward(), at::linear(layer.x, layer.weight, layer.bias)));
}

TEST_CASE("LoRA's linear takes expanded gradients and gives contiguous ones", "[ops]") {
  const Layer layer;
  const auto grads =
      torch::autograd::grad({layer.forward(0.3, {1}).sum()}, {layer.x, layer.a, layer.b});
  for (const at::Tensor& grad : grads) CHECK(grad.is_contiguous());
}

TEST_CASE("LoRA's linear computes no gradient that nobody asked for", "[ops]") {
  const Layer layer;
  const at::Tensor x = layer.x.detach();
  const at::Tensor out =
      ops::lora_linear(x, layer.weight, layer.bias, {layer.a, layer.b, 2, 0.2, {1, 2, 3, 4}});
  const auto grads = torch::autograd::grad({out.sum()}, {layer.a, layer.b});
  const at::Tensor plain = ops::reference::lora_linear(x, layer.weight, layer.bias,
                                                       {layer.a, layer.b, 2, 0.2, {1, 2, 3, 4}});
  const auto want = torch::autograd::grad({plain.sum()}, {layer.a, layer.b});
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(at::allclose(grads[i], want[i], 1e-4, 1e-4));
  const at::NoGradGuard no_grad;
  CHECK(!layer.forward().requires_grad());
}

TEST_CASE("LoRA's dropout repeats for its seeds, whatever the batch around them", "[ops]") {
  const Layer layer;
  const at::Tensor all = layer.forward(0.4, {1, 2, 3, 4});
  CHECK(at::equal(all, layer.forward(0.4, {1, 2, 3, 4})));
  const at::Tensor one = ops::lora_linear(layer.x.narrow(0, 2, 1), layer.weight, layer.bias,
                                          {layer.a, layer.b, 0.5, 0.4, {3}});
  CHECK(at::allclose(one[0], all[2], 1e-5, 1e-5));
  CHECK(!at::allclose(all, layer.forward(0.4, {1, 2, 3, 5})));
}

// The GEMMs are ATen's: how they split their sums over threads is the BLAS's business.
TEST_CASE("LoRA's linear gives the same numbers for any number of threads", "[ops]") {
  const Layer layer;
  const auto results = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor out = layer.forward(0.4, {1, 2, 3, 4});
    auto all = torch::autograd::grad({out.square().sum()}, {layer.x, layer.a, layer.b});
    all.push_back(out);
    return all;
  };
  const int before = at::get_num_threads();
  const auto one = results(1), two = results(2);
  at::set_num_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(at::allclose(one[i], two[i], 1e-5, 1e-5));
}

TEST_CASE("LoRA's linear refuses what does not fit, with expected and got", "[ops]") {
  const Layer layer;
  const auto call = [&](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& a, const at::Tensor& b, double dropout = 0) {
    return ops::lora_linear(x, weight, bias, {a, b, 1, dropout, {}});
  };
  const auto& [x, weight, bias, a, b] = layer;
  CHECK_THROWS_WITH(call(x, weight.t(), bias, a, b), Catch::Contains("weight: expected [24, 24]"));
  CHECK_THROWS_WITH(call(x, weight, bias, b, b),
                    Catch::Contains("lora_a: expected [8, 24]") && Catch::Contains("[40, 8]"));
  CHECK_THROWS_WITH(call(x, weight, bias, a, a), Catch::Contains("lora_"));
  CHECK_THROWS_WITH(call(x, weight, at::ones({3}), a, b), Catch::Contains("bias: expected [40]"));
  CHECK_THROWS_WITH(call(x, weight, bias, a.to(at::kHalf), b), Catch::Contains("got float16"));
  CHECK_THROWS_WITH(call(x, weight, bias, a, at::Tensor()), Catch::Contains("undefined tensor"));
  CHECK_THROWS_WITH(call(x, weight, bias, a, b, 0.1), Catch::Contains("seeds: expected one"));
  CHECK_THROWS_AS(call(x, weight, bias, a, b, 1.5), Error);
  CHECK_THROWS_WITH(
      torch::autograd::grad({layer.forward().sum()}, {x}, {}, std::nullopt, /*create_graph=*/true),
      Catch::Contains("no second derivative"));
}
