// Packed and neighborhood attention against all pairs with a mask, in float64.
#include "ops/core/error.h"
#include "test/ops/attention/attention_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("packed attention equals masked attention over all pairs", "[ops]") {
  check_cases(varlen_attention_cases());
  check_gradients(varlen_attention_cases());
}

TEST_CASE("neighborhood attention equals masked attention over all pairs", "[ops]") {
  check_cases(neighborhood_attention_cases());
  check_gradients(neighborhood_attention_cases());
}

TEST_CASE("a neighborhood is what NATTEN says", "[ops]") {
  const auto sees = [](ops::NeighborhoodAxis axis, int64_t i) {
    const at::Tensor row = ops::reference::neighborhood_mask({{{}, {}, axis}})[i];
    std::vector<int64_t> keys;
    for (int64_t j = 0; j < axis.length; ++j)
      if (row[j].item<bool>()) keys.push_back(j);
    return keys;
  };
  using Keys = std::vector<int64_t>;
  CHECK(sees({8, 3}, 4) == Keys{3, 4, 5});
  CHECK(sees({8, 3}, 0) == Keys{0, 1, 2});
  CHECK(sees({8, 3}, 7) == Keys{5, 6, 7});
  CHECK(sees({8, 4}, 4) == Keys{2, 3, 4, 5});
  CHECK(sees({8, 4, 2}, 4) == sees({8, 4, 2}, 5));
  CHECK(sees({8, 4, 2}, 4) == Keys{3, 4, 5, 6});
  CHECK(sees({8, 3, 1, 2}, 4) == Keys{2, 4, 6});
  CHECK(sees({8, 3, 1, 1, true}, 4) == Keys{2, 3, 4});
}

TEST_CASE("a plan covers every token once and its tiles of equal form are one group", "[ops]") {
  const ops::NeighborhoodPlan plan({{{2, 2}, {44, 12, 4}, {80, 24, 8}}}, at::kCPU);
  at::Tensor count = at::zeros({plan.tokens()}, at::kLong);
  for (const auto& group : plan.groups()) {
    const at::Tensor tokens = group.queries.flatten();
    count.index_add_(0, tokens, at::ones_like(tokens));
    CHECK(!group.mask.defined());
  }
  CHECK((count == 1).all().item<bool>());
  CHECK(plan.groups().size() == 1);
}

TEST_CASE("attention refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor q = at::randn({6, 4, 8}), k = at::randn({6, 3, 8});
  CHECK_THROWS_WITH(ops::varlen_attention(q, k, k, {0, 6}, {0, 6}),
                    Catch::Contains("heads a multiple of kv_heads"));
  CHECK_THROWS_WITH(ops::varlen_attention(q, q, q, {0, 4}, {0, 6}),
                    Catch::Contains("q_offsets: expected offsets that rise from 0 to 6"));
  CHECK_THROWS_WITH(ops::varlen_attention(q, q, q, {0, 4, 6}, {0, 6}),
                    Catch::Contains("q_offsets name 2 sequences, k_offsets 1"));
  CHECK_THROWS_WITH(ops::NeighborhoodPlan({{{}, {4, 5}, {4, 3}}}, at::kCPU),
                    Catch::Contains("height: expected") && Catch::Contains("window 5"));
  const ops::NeighborhoodPlan plan({{{}, {4, 3}, {4, 3}}}, at::kCPU);
  CHECK_THROWS_WITH(
      ops::neighborhood_attention(q.unsqueeze(0), q.unsqueeze(0), q.unsqueeze(0), plan),
      Catch::Contains("expected 16 tokens as the plan, got 6"));
  CHECK_THROWS_AS(ops::varlen_attention(q.to(at::kInt), q, q, {0, 6}, {0, 6}), Error);
}
