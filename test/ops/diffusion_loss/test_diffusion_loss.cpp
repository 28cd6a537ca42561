// The network's input and the loss of its output, against the plain formula in float64.
#include <limits>

#include "ops/core/error.h"
#include "ops/core/path.h"
#include "test/ops/diffusion_loss/diffusion_loss_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("the diffusion input equals the plain formula in every dtype and instruction set",
          "[ops]") {
  check_cases(diffusion_input_cases());
}

TEST_CASE("the diffusion loss equals the plain formula in every dtype and instruction set",
          "[ops]") {
  check_cases(diffusion_loss_cases());
}

TEST_CASE("diffusion gradients equal central differences", "[ops]") {
  check_gradients(diffusion_input_cases());
  check_gradients(diffusion_loss_cases());
}

TEST_CASE("float32 latents make a bfloat16 input in one pass", "[ops]") {
  torch::manual_seed(2);
  const at::Tensor x0 = at::randn({2, 3, 4, 5, 6}), noise = at::randn({2, 3, 4, 5, 6});
  const at::Tensor p = at::rand({2, 4}), q = at::rand({2});
  const at::Tensor wide = ops::diffusion_input(x0, noise, p, q);
  const at::Tensor narrow = ops::diffusion_input(x0, noise, p, q, at::kBFloat16);
  CHECK(narrow.scalar_type() == at::kBFloat16);
  CHECK(at::equal(narrow, wide.to(at::kBFloat16)));
}

TEST_CASE("float16 latents beside a bfloat16 output are read through a float32 copy", "[ops]") {
  torch::manual_seed(2);
  const at::Tensor output = at::randn({1, 2, 2, 3, 3}).to(at::kBFloat16);
  const at::Tensor x0 = at::randn({1, 2, 2, 3, 3}).to(at::kHalf);
  const at::Tensor noise = at::randn({1, 2, 2, 3, 3}).to(at::kHalf), one = at::ones({1});
  const at::Tensor loss = ops::diffusion_loss(output, x0, noise, one, -one, one);
  CHECK(loss.scalar_type() == at::kFloat);
  const at::Tensor error = output.to(at::kFloat) - (x0.to(at::kFloat) - noise.to(at::kFloat));
  CHECK(mismatch(loss[0], error.square().mean() * 2, tolerance(at::kFloat)) == "");
}

TEST_CASE("a frame without weight is not read and gets no gradient", "[ops]") {
  const at::Tensor zero = at::zeros({1, 2, 2, 2, 2});
  const at::Tensor output = at::ones({1, 2, 2, 2, 2});
  output.select(2, 0).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor leaf = output.requires_grad_();
  const at::Tensor weight = at::tensor({0.f, 3.f}).view({1, 2}), one = at::ones({1});
  const ops::Path before = ops::path();
  for (const ops::Path path : {ops::Path::kFused, ops::Path::kReference}) {
    ops::set_path(path);
    const at::Tensor loss = ops::diffusion_loss(leaf, zero, zero, one, one, weight);
    CHECK(loss.item<float>() == Approx(3));
    const at::Tensor grad = torch::autograd::grad({loss.sum()}, {leaf})[0];
    CHECK(at::equal(grad.select(2, 0), zero.select(2, 0)));
    CHECK(grad.select(2, 1).sum().item<float>() == Approx(6));
  }
  ops::set_path(before);
}

TEST_CASE("diffusion losses have the same bits for any number of threads", "[ops]") {
  torch::manual_seed(5);
  const at::Tensor x0 = at::randn({2, 4, 3, 70, 90}), noise = at::randn_like(x0);
  const at::Tensor output = at::randn_like(x0).requires_grad_();
  const at::Tensor p = at::randn({2, 3}), weight = at::rand({2, 3});
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor loss = ops::diffusion_loss(output, x0, noise, p, p, weight);
    return std::pair(loss.detach(), torch::autograd::grad({loss.sum()}, {output})[0]);
  };
  const int before = at::get_num_threads();
  const auto one = run(1), two = run(2);
  at::set_num_threads(before);
  CHECK(at::equal(one.first, two.first));
  CHECK(at::equal(one.second, two.second));
}

TEST_CASE("the diffusion operators refuse what does not fit, with expected and got", "[ops]") {
  const at::Tensor x0 = at::ones({2, 3, 4, 5, 6}), one = at::ones({2});
  CHECK_THROWS_WITH(
      ops::diffusion_input(x0, x0, at::ones({2, 5}), one),
      Catch::Contains("x0_scale: expected [2] or [2, 4]") && Catch::Contains("got float32 [2, 5]"));
  CHECK_THROWS_WITH(ops::diffusion_input(x0, at::ones({2, 3, 4, 5, 7}), one, one),
                    Catch::Contains("noise: expected shape [2, 3, 4, 5, 6]"));
  CHECK_THROWS_WITH(ops::diffusion_input(x0.flatten(3), x0.flatten(3), one, one),
                    Catch::Contains("x0: expected [B, C, T, H, W]"));
  CHECK_THROWS_WITH(ops::diffusion_input(x0, x0, one, one, at::kInt),
                    Catch::Contains("dtype: expected float32"));
  CHECK_THROWS_WITH(ops::diffusion_loss(at::ones({2, 3, 4, 5}), x0, x0, one, one, one),
                    Catch::Contains("output: expected [2, 3, 4, 5, 6]"));
  CHECK_THROWS_WITH(ops::diffusion_loss(x0, at::ones_like(x0).requires_grad_(), x0, one, one, one),
                    Catch::Contains("x0 requires grad"));
  CHECK_THROWS_WITH(ops::diffusion_loss(x0, x0, x0, one, one, at::ones({2}).requires_grad_()),
                    Catch::Contains("weight requires grad"));
  CHECK_THROWS_AS(ops::diffusion_loss(x0.to(at::kInt), x0, x0, one, one, one), Error);
}
