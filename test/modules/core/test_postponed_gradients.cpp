// Weight gradients that are computed later are those that autograd computes at once.

#include <catch2/catch.hpp>

#include "modules/core/linear.h"

using namespace cosmos;
using namespace cosmos::modules;

TEST_CASE("postponed weight gradients add up to autograd's", "[linear]") {
  const bool bias = GENERATE(true, false), input_gradient = GENERATE(true, false);
  torch::manual_seed(3);
  Linear linear(5, 4, bias);
  linear->to(torch::kFloat64);
  const Tensor data = torch::randn({2, 3, 5}, torch::kFloat64);
  const auto backward = [&] {
    const Tensor x = data.clone().set_requires_grad(input_gradient);
    linear->forward(x).square().sum().backward();
    return input_gradient ? x.grad() : Tensor();
  };
  const Tensor x_grad = backward();
  const Tensor weight_grad = linear->weight.grad().clone();
  const Tensor bias_grad = bias ? linear->bias.grad().clone() : Tensor();
  linear->zero_grad();

  const auto later = std::make_shared<PostponedGradients>();
  linear->postpone_weight_gradient(later);
  const Tensor again = backward();
  if (input_gradient) CHECK(torch::equal(again, x_grad));
  if (bias) CHECK(torch::allclose(linear->bias.grad(), bias_grad));
  CHECK(!linear->weight.grad().defined());
  auto gradients = later->take();
  REQUIRE(gradients.size() == 1);
  gradients[0]();
  CHECK(torch::allclose(linear->weight.grad(), weight_grad));
  gradients[0]();
  CHECK(torch::allclose(linear->weight.grad(), 2 * weight_grad));
  CHECK(later->take().empty());

  linear->postpone_weight_gradient(nullptr);
  linear->zero_grad();
  backward();
  CHECK(torch::allclose(linear->weight.grad(), weight_grad));
}
