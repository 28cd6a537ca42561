// A multi-view transformer on ranks against one process: what splits a clip's tokens, its products
// and its blocks leaves its views whole.

#include "test/support/rank_runs.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("multi-view models train on ranks as in one process", "[multiview][parallel]") {
  const Json recipe = {{"type", "multiview"},
                       {"views", {{"state_t", 3}, {"n_cameras_emb", 5}, {"view_condition_dim", 3}}},
                       {"data", {{"type", "latent-views"}}},
                       {"model", {{"num_attention_heads", 4}}},
                       {"text_dropout", 0.25}};
  Runs runs;
  const Json how = {{"save_every", 6}};
  const Outcome one = runs.run("one", 1, how, recipe);
  CHECK(one.weights.count("view_embeddings.weight") == 1);
  const auto check = [&](const char* name, const Json& parallel, int64_t accumulation) {
    INFO(name);
    Json split = how;
    split["parallel"] = parallel;
    split["gradient_accumulation"] = accumulation;
    check_same(runs.run(name, 2, split, recipe), one, 1e-9);
  };
  check("shard", {{"shard", 2}}, 2);
  check("context", {{"context", 2}, {"shard", 1}}, 4);
  check("tensor", {{"tensor", 2}}, 4);
  check("pipeline", {{"pipeline", 2}}, 4);
}
