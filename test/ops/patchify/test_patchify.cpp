// Patches and back, against the plain permutation.
#include "ops/core/error.h"
#include "test/ops/patchify/patchify_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;
using ops::PatchOrder;

TEST_CASE("patchify and unpatchify equal the permutation in every dtype and instruction set",
          "[ops]") {
  check_cases(patchify_cases());
}

TEST_CASE("patchify gradients equal central differences", "[ops]") {
  check_gradients(patchify_cases());
}

TEST_CASE("unpatchify undoes patchify bit by bit, in every element size", "[ops]") {
  for (const auto dtype : {at::kByte, at::kShort, at::kBFloat16, at::kInt, at::kFloat, at::kLong})
    for (const auto order : {PatchOrder::kChannelsFirst, PatchOrder::kChannelsLast}) {
      INFO(dtype);
      const at::Tensor x = at::arange(2 * 3 * 4 * 6 * 8).view({2, 3, 4, 6, 8}).to(dtype);
      const at::Tensor tokens = ops::patchify(x, {2, 3, 4}, order);
      CHECK(at::equal(tokens, ops::reference::patchify(x, {2, 3, 4}, order)));
      CHECK(at::equal(ops::unpatchify(tokens, {2, 3, 4}, order), x));
    }
}

TEST_CASE("patchify reads expanded and misaligned videos in place", "[ops]") {
  const at::Tensor mask = at::randn({2, 1, 4, 1, 1}).expand({2, 3, 4, 6, 8});
  const auto order = PatchOrder::kChannelsFirst;
  CHECK(at::equal(ops::patchify(mask, {1, 2, 2}, order),
                  ops::reference::patchify(mask, {1, 2, 2}, order)));
  const at::Tensor shifted = at::randn({2, 3, 4, 6, 10}).narrow(4, 1, 8);
  CHECK(at::equal(ops::patchify(shifted, {1, 2, 2}, order),
                  ops::reference::patchify(shifted, {1, 2, 2}, order)));
}

TEST_CASE("patchify can be differentiated twice", "[ops]") {
  const at::Tensor x = at::randn({1, 2, 2, 4, 4}).requires_grad_();
  const at::Tensor y = ops::patchify(x, {1, 2, 2}, PatchOrder::kChannelsLast).pow(3).sum();
  const auto first = torch::autograd::grad({y}, {x}, {}, std::nullopt, /*create_graph=*/true);
  const auto second = torch::autograd::grad({first[0].sum()}, {x});
  CHECK(at::allclose(second[0], 6 * x));
}

TEST_CASE("patchify refuses what does not fit, with expected and got", "[ops]") {
  const auto order = PatchOrder::kChannelsFirst;
  CHECK_THROWS_WITH(
      ops::patchify(at::ones({1, 2, 2, 5, 4}), {1, 2, 2}, order),
      Catch::Contains("patches of [1, 2, 2]") && Catch::Contains("got float32 [1, 2, 2, 5, 4]"));
  CHECK_THROWS_WITH(ops::patchify(at::ones({2, 4, 4}), {1, 2, 2}, order),
                    Catch::Contains("expected five dimensions"));
  CHECK_THROWS_WITH(ops::patchify(at::ones({1, 2, 2, 4, 4}), {1, 0, 2}, order),
                    Catch::Contains("three positive sizes, got [1, 0, 2]"));
  CHECK_THROWS_WITH(ops::unpatchify(at::ones({1, 2, 2, 2, 6}), {1, 2, 2}, order),
                    Catch::Contains("a multiple of 4"));
  CHECK_THROWS_AS(ops::patchify(at::ones({1, 1, 1, 1, 1}, at::kComplexDouble), {1, 1, 1}, order),
                  Error);
}
