// The small shared pieces: random numbers, config fields, the Linear seam.
#include <catch2/catch.hpp>

#include "modules/core/fields.h"
#include "modules/core/linear.h"
#include "modules/core/random.h"

using namespace cosmos;
using namespace cosmos::modules;

TEST_CASE("Philox draws are a function of seed, purpose and index", "[core]") {
  Philox a(7, Purpose::kNoise, 3), b(7, Purpose::kNoise, 3), other(7, Purpose::kNoise, 4);
  const Tensor x = a.normal({1000}), y = b.normal({1000}), z = other.normal({1000});
  CHECK(torch::equal(x, y));
  CHECK_FALSE(torch::equal(x, z));
  CHECK(std::abs(x.mean().item<double>()) < 0.1);
  CHECK(std::abs(x.std().item<double>() - 1) < 0.1);
  const Tensor u = a.uniform({1000});
  CHECK(u.min().item<double>() >= 0);
  CHECK(u.max().item<double>() < 1);
}

namespace {
struct Inner {
  double lr = 0.5;
  template <typename V>
  void fields(V& v) {
    v("lr", lr, "learning rate");
  }
};
struct Outer {
  int64_t steps = 3;
  std::optional<int64_t> seed;
  std::vector<double> betas{0.9, 0.99};
  Inner optimizer;
  template <typename V>
  void fields(V& v) {
    v("steps", steps);
    v("seed", seed);
    v("betas", betas);
    v("optimizer", optimizer);
  }
};
}  // namespace

TEST_CASE("config fields read, write and refuse typos with the nearest name", "[core]") {
  Outer config;
  read_fields(Json::parse(R"({"steps": 1e3, "seed": null, "optimizer": {"lr": 1}})"), config, "c",
              UnknownKeys::kRefuse);
  CHECK(config.steps == 1000);
  CHECK(config.optimizer.lr == 1.0);
  CHECK(write_fields(config)["betas"] == Json::parse("[0.9, 0.99]"));
  CHECK_THROWS_WITH(
      read_fields(Json::parse(R"({"optimizer": {"lrr": 1}})"), config, "c", UnknownKeys::kRefuse),
      "c.optimizer.lrr is not a setting (did you mean lr?)");
  CHECK_THROWS_WITH(
      read_fields(Json::parse(R"({"steps": "ten"})"), config, "c", UnknownKeys::kRefuse),
      "c.steps: expected a whole number, got string \"ten\"");
}

TEST_CASE("a Linear group equals its members", "[core]") {
  Linear q(4, 6, false), k(4, 5);
  const Tensor x = torch::randn({2, 3, 4});
  const Tensors out = linear_group(x, {q, k});
  CHECK(torch::allclose(out[0], torch::matmul(x, q->weight.t())));
  CHECK(torch::allclose(out[1], torch::matmul(x, k->weight.t()) + k->bias));
}

namespace {

/// Doubles on the way in, triples on the way out, and counts.
struct Doubler : LinearCollective {
  Tensor enter(const Tensor& x) const override { return ++entered, 2 * x; }
  Tensor leave(const Tensor& product) const override { return 3 * product; }
  bool sums() const override { return sum; }
  std::optional<ops::ClassRange> class_range(int64_t) const override { return std::nullopt; }
  Tensor row_norm(const Tensor& partial) const override { return partial; }
  bool sum = false;
  mutable int entered = 0;
};

}  // namespace

TEST_CASE("a collective stands around the product, once for Linears of one input", "[core]") {
  Linear q(4, 6), k(4, 5), other(4, 3);
  const auto doubler = std::make_shared<Doubler>();
  q->set_collective(doubler);
  k->set_collective(doubler);
  const Tensor x = torch::randn({2, 3, 4});
  const Tensors out = linear_group(x, {q, k, other});
  CHECK(doubler->entered == 1);
  const Tensor product = torch::matmul(2 * x, q->weight.t());
  CHECK(torch::allclose(out[0], 3 * (product + q->bias)));
  CHECK(torch::allclose(out[2], torch::linear(x, other->weight, other->bias)));
  doubler->sum = true;  // the bias comes after, once
  CHECK(torch::allclose(q->forward(x), 3 * product + q->bias));
}
