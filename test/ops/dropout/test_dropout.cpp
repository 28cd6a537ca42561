// Dropout by seed against the plain formula, and what its masks promise.
#include <ATen/Parallel.h>

#include "ops/core/error.h"
#include "ops/core/philox.h"
#include "test/ops/dropout/dropout_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

namespace {

at::Tensor mask(at::IntArrayRef shape, double p, std::vector<int64_t> seeds,
                at::ScalarType dtype = at::kFloat) {
  return ops::seeded_dropout(at::ones(shape, dtype), p, seeds).ne(0);
}

}  // namespace

TEST_CASE("Philox gives the known answers of its authors", "[ops]") {
  const auto zero = ops::philox(0, 0, 0, 0, 0);
  CHECK(zero.word[0] == 0x6627e8d5u);
  CHECK(zero.word[3] == 0x9b00dbd8u);
  const auto pi =
      ops::philox(0x299f31d0a4093822u, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u);
  CHECK(pi.word[0] == 0xd16cfe09u);
  CHECK(pi.word[3] == 0x24126ea1u);
}

TEST_CASE("Dropout by seed equals the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(dropout_cases());
}

TEST_CASE("Dropout by seed has the gradients of central differences", "[ops]") {
  check_gradients(dropout_cases());
}

TEST_CASE("A dropout mask is a function of the sample's seed alone", "[ops]") {
  const at::Tensor both = mask({2, 700, 3}, 0.4, {5, 6});
  CHECK(at::equal(both[0], mask({700, 3}, 0.4, {5})));
  CHECK(at::equal(both[1], mask({1, 2100}, 0.4, {6}).view({700, 3})));
  CHECK(!at::equal(both[0], both[1]));
  CHECK(at::equal(both, mask({2, 700, 3}, 0.4, {5, 6}, at::kBFloat16)));
  const int before = at::get_num_threads();
  at::set_num_threads(before == 1 ? 2 : 1);
  CHECK(at::equal(mask({300000}, 0.4, {5}), [&] {
    at::set_num_threads(before);
    return mask({300000}, 0.4, {5});
  }()));
}

TEST_CASE("A slice's dropout mask is its part of the whole one", "[ops]") {
  // Two samples of 3 frames of 8 tokens of 600 features; two ranks a frame, three a token.
  const at::Tensor whole = mask({2, 3, 8, 600}, 0.4, {5, 6});
  for (const int64_t t : {0, 4})
    for (const int64_t f : {0, 200, 400}) {
      INFO(t << " " << f);
      const at::Tensor part =
          ops::seeded_dropout(at::ones({2, 3, 4, 200}), 0.4, {5, 6}, {4, t, 8, f, 600}).ne(0);
      CHECK(at::equal(part, whole.narrow(2, t, 4).narrow(3, f, 200)));
    }
  const at::Tensor tokens =
      ops::seeded_dropout(at::ones({2, 3, 2, 600}), 0.4, {5, 6}, {2, 6, 8, 0, 600}).ne(0);
  CHECK(at::equal(tokens, whole.narrow(2, 6, 2)));
}

TEST_CASE("Dropout keeps the share it was asked for, and the mean", "[ops]") {
  constexpr int64_t kCount = 1000003;
  for (const double p : {0.0, 0.1, 0.5, 0.9}) {
    INFO(p);
    const at::Tensor out = ops::seeded_dropout(at::ones({kCount}), p, {11});
    const double sigma = std::sqrt(p * (1 - p) / kCount);
    CHECK(std::abs(out.ne(0).to(at::kDouble).mean().item<double>() - (1 - p)) <= 5 * sigma + 1e-5);
    CHECK(std::abs(out.to(at::kDouble).mean().item<double>() - 1) <= 5 * sigma / (1 - p) + 1e-5);
  }
}

TEST_CASE("Infinities and NaN do not come through where dropped", "[ops]") {
  const at::Tensor out = ops::seeded_dropout(at::full({999}, INFINITY), 0.5, {1});
  CHECK(!out.isnan().any().item<bool>());
  CHECK(out.eq(0).any().item<bool>());
}

TEST_CASE("Dropout refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::randn({3, 4});
  CHECK_THROWS_WITH(ops::seeded_dropout(x, 1.0, {1}), Catch::Contains("0 <= p < 1, got 1"));
  CHECK_THROWS_WITH(ops::seeded_dropout(x, 0.1, {1, 2}),
                    Catch::Contains("one for each sample") && Catch::Contains("got 2"));
  CHECK_THROWS_AS(ops::seeded_dropout(x, 0.1, {}), Error);
  CHECK_THROWS_WITH(ops::seeded_dropout(x, 0.1, {1}, {3, 4, 6, 0, 4}),
                    Catch::Contains("slice: expected {rows, first_row"));
  CHECK_THROWS_WITH(ops::seeded_dropout(x, 0.1, {1}, {3, 0, 6}), Catch::Contains("5 numbers"));
  CHECK_THROWS_AS(ops::seeded_dropout(x.to(at::kInt), 0.1, {1}), Error);
}
