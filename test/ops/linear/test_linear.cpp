// The linear layer's product with few rows against at::linear in float64.
#include <ATen/Parallel.h>
#include <ATen/ops/linear.h>

#include "ops/core/error.h"
#include "ops/linear/linear.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

namespace {

struct Shape {
  std::vector<int64_t> x;
  int64_t out;
  bool bias = true;
};

/// Inputs are widths around a vector's; outputs leave a rest for every block of rows.
const std::vector<Shape> kShapes = {{{1, 1}, 1},
                                    {{7}, 5},
                                    {{1, 16}, 4, false},
                                    {{2, 1, 33}, 7},
                                    {{3, 64}, 9},
                                    {{4, 1, 1, 130}, 1},
                                    {{1, 5, 48}, 6},
                                    {{0, 16}, 3},
                                    {{1, 2, 1, 1, 1, 2, 31}, 3},
                                    {{1, 1, 1500}, 70, false}};

at::Tensor streamed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {}) {
  const ops::StreamFewRows scope;
  return ops::linear(x, weight, bias);
}

struct Layer {
  at::Tensor x, weight;
  at::Tensor bias;

  Layer(const Shape& shape, at::ScalarType dtype)
      : x(at::randn(shape.x, dtype)), weight(at::randn({shape.out, shape.x.back()}, dtype)) {
    if (shape.bias) bias = at::randn({shape.out}, dtype);
  }
  at::Tensor forward() const { return streamed(x, weight, bias); }
  at::Tensor exact() const {
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    return at::linear(wide(x), wide(weight), bias.defined() ? wide(bias) : bias);
  }
};

}  // namespace

TEST_CASE("Linear equals at::linear in float64, in every dtype and instruction set", "[ops]") {
  torch::manual_seed(5);
  const ops::Isa best = ops::isa();
  for (const ops::Isa isa : {ops::Isa::kDefault, ops::Isa::kAvx2, ops::Isa::kAvx512}) {
    if (!ops::has_isa(isa)) continue;
    ops::set_isa(isa);
    for (const Shape& shape : kShapes) {
      for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
        const Layer layer(shape, dtype);
        INFO(layer.x.sizes() << " to " << shape.out << ", " << dtype << ", instruction set "
                             << static_cast<int>(isa));
        const at::Tensor got = layer.forward();
        CHECK(got.scalar_type() == dtype);
        CHECK(mismatch(got, layer.exact(), tolerance(dtype)) == "");
      }
    }
  }
  ops::set_isa(best);
}

TEST_CASE("A row of Linear has the same bits alone, in company and on any threads", "[ops]") {
  const int before = at::get_num_threads();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Layer layer({{4, 200}, 1030}, dtype);
    at::set_num_threads(1);
    const at::Tensor all = layer.forward();
    at::set_num_threads(3);
    CHECK(at::equal(layer.forward(), all));
    for (int64_t row = 0; row < 4; ++row) {
      INFO("row " << row << ", " << dtype);
      CHECK(at::equal(streamed(layer.x[row], layer.weight, layer.bias), all[row]));
    }
  }
  at::set_num_threads(before);
}

TEST_CASE("Linear reads strided inputs and weights", "[ops]") {
  const at::Tensor x = at::randn({3, 40}).t()[7].unsqueeze(0), weight = at::randn({3, 11}).t();
  CHECK(at::allclose(streamed(x, weight), at::linear(x, weight), 1e-5, 1e-6));
  const at::Tensor bias = at::randn({22}).slice(0, 0, 22, 2), straight = weight.contiguous();
  CHECK(at::allclose(streamed(x, straight, bias), at::linear(x, straight, bias), 1e-5, 1e-6));
}

TEST_CASE("Outside of a scope that asks for streams Linear has the library's bits", "[ops]") {
  const Layer layer({{1, 700}, 90}, at::kFloat);
  const at::Tensor plain = at::linear(layer.x, layer.weight, layer.bias);
  CHECK(at::equal(ops::linear(layer.x, layer.weight, layer.bias), plain));
  CHECK(!at::equal(layer.forward(), plain));
  CHECK(at::equal(ops::linear(layer.x, layer.weight, layer.bias), plain));
}

TEST_CASE("Linear is differentiable, twice too", "[ops]") {
  const auto forward = [](const std::vector<at::Tensor>& t) -> std::vector<at::Tensor> {
    return {streamed(t[0], t[1], t[2])};
  };
  CHECK(gradcheck(forward, {leaf({2, 5}), leaf({3, 5}), leaf({3})}) == "");
  const at::Tensor x = leaf({1, 5}), weight = leaf({3, 5});
  const auto dx = torch::autograd::grad({ops::linear(x, weight).square().sum()}, {x}, {},
                                        std::nullopt, /*create_graph=*/true);
  CHECK(torch::autograd::grad({dx[0].sum()}, {weight})[0].defined());
}

TEST_CASE("Linear refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::ones({2, 4}), weight = at::ones({3, 4});
  CHECK_THROWS_WITH(ops::linear(x, weight.t()), Catch::Contains("weight: expected [out, in]") &&
                                                    Catch::Contains("float32 [4, 3] on cpu"));
  CHECK_THROWS_WITH(ops::linear(x, weight, at::ones({4})), Catch::Contains("bias: expected [3]"));
  CHECK_THROWS_WITH(ops::linear(x, weight.to(at::kHalf)), Catch::Contains("float16"));
  CHECK_THROWS_AS(ops::linear(x.to(at::kLong), weight), Error);
}
