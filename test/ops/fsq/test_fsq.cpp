// Finite scalar quantisation against the plain formula in float64.
#include "ops/core/error.h"
#include "test/ops/fsq/fsq_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

namespace {

const std::vector<int64_t> kCosmosLevels = {8, 8, 8, 5, 5, 5};

}  // namespace

TEST_CASE("FSQ equals the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(fsq_cases());
}

TEST_CASE("FSQ gradients are those of the bounded latent", "[ops]") {
  torch::manual_seed(3);
  const at::Tensor z = at::randn({5, 6}, at::kDouble).requires_grad_();
  const at::Tensor seed = at::randn({5, 6}, at::kDouble);
  const at::Tensor width = at::tensor({4., 4., 4., 2., 2., 2.}, at::kDouble);
  const auto [codes, indices] = ops::fsq(z, kCosmosLevels);
  const at::Tensor got = torch::autograd::grad({codes}, {z}, {seed})[0];
  const at::NoGradGuard no_grad;
  const auto bounded = [&](double step) {
    return ops::reference::fsq_bound(z + step, kCosmosLevels) / width * seed;
  };
  CHECK(at::allclose(got, (bounded(1e-6) - bounded(-1e-6)) / 2e-6, 1e-6, 1e-8));
}

TEST_CASE("FSQ indices are those of the plain formula and decode to the codes", "[ops]") {
  torch::manual_seed(4);
  const at::Tensor z = at::randn({2, 3, 57, 6}) * 3;
  const auto [codes, indices] = ops::fsq(z, kCosmosLevels);
  const auto [plain_codes, plain_indices] = ops::reference::fsq(z, kCosmosLevels);
  CHECK(indices.scalar_type() == at::kInt);
  CHECK(indices.sizes() == at::IntArrayRef({2, 3, 57}));
  CHECK(!indices.requires_grad());
  CHECK(at::equal(indices, plain_indices));
  CHECK(at::equal(ops::fsq_decode(indices, kCosmosLevels), codes));
}

TEST_CASE("every FSQ index decodes to a code of its own that quantises to itself", "[ops]") {
  const std::vector<int64_t> levels = {8, 5, 3, 2, 7};
  const at::Tensor indices = at::arange(8 * 5 * 3 * 2 * 7, at::kInt);
  const at::Tensor codes = ops::fsq_decode(indices, levels, at::kDouble);
  CHECK(at::equal(codes, ops::reference::fsq_decode(indices, levels, at::kDouble)));
  CHECK(codes.min().item<double>() == -1);
  // The middle of a code's cell: bounded = code * (L / 2), undone.
  at::Tensor z = at::empty_like(codes);
  for (std::size_t d = 0; d < levels.size(); ++d) {
    const double count = static_cast<double>(levels[d]), half = (count - 1) * 1.001 / 2;
    const double offset = levels[d] % 2 ? 0 : 0.5;
    const at::Tensor bounded = codes.select(1, static_cast<int64_t>(d)) * (levels[d] / 2);
    z.select(1, static_cast<int64_t>(d))
        .copy_(((bounded + offset) / half).atanh() - std::atanh(offset / half));
  }
  const auto [again, same] = ops::fsq(z, levels);
  CHECK(at::equal(again, codes));
  CHECK(at::equal(same, indices));
}

TEST_CASE("FSQ decodes into the dtype asked for", "[ops]") {
  const at::Tensor indices = at::arange(20, at::kInt).view({4, 5});
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    const at::Tensor codes = ops::fsq_decode(indices, {4, 5}, dtype);
    CHECK(codes.scalar_type() == dtype);
    CHECK(at::equal(codes, ops::reference::fsq_decode(indices, {4, 5}, dtype)));
  }
}

TEST_CASE("FSQ refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor z = at::randn({4, 6});
  CHECK_THROWS_WITH(ops::fsq(z, {8, 8}),
                    Catch::Contains("expected [..., 2]") && Catch::Contains("[4, 6]"));
  CHECK_THROWS_WITH(ops::fsq(z, {8, 8, 8, 5, 5, 1}), Catch::Contains("at least 2"));
  CHECK_THROWS_WITH(ops::fsq(at::randn({4, 2}), {65536, 65536}), Catch::Contains("2^31 - 1"));
  CHECK_THROWS_WITH(ops::fsq_decode(at::zeros({4}, at::kLong), {8, 8}),
                    Catch::Contains("expected int32"));
  CHECK_THROWS_AS(ops::fsq(z.to(at::kInt), kCosmosLevels), Error);
}
