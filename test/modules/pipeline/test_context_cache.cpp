// Keys and values of a text computed once a generation: the same bits as computing them at every
// step, adapters on the projections included.

#include <catch2/catch.hpp>

#include "modules/lora/lora.h"
#include "modules/pipeline/control.h"
#include "test/support/tiny_transfer.h"

using namespace cosmos;
using namespace cosmos::modules;

namespace {

void spread(Model& model) {
  const torch::NoGradGuard no_grad;
  for (auto& weight : model.parameters()) weight.add_(0.2 * torch::randn_like(weight));
}

}  // namespace

TEST_CASE("the second step reads keys and values of the first", "[pipeline][dit]") {
  auto pipeline = test::tiny_transfer_pipeline();
  auto& dit = *pipeline.transformer;
  torch::manual_seed(5);
  spread(dit);
  bool adapted = false;
  SECTION("the base") {}
  SECTION("with LoRA on the projections of the text") {
    apply_lora(dit, {.rank = 2, .alpha = 4, .target_modules = {"attn2.to_k", "attn2.to_v"}}, 3);
    spread(dit);
    adapted = true;
  }
  const Tensor input = torch::randn({1, 4, 3, 2, 4}), time = torch::rand({1}),
               mask = torch::zeros({1, 1, 3, 2, 4});
  const Tensor text = torch::randn({1, 5, 8}), negative = torch::randn({1, 7, 8});
  NetworkOptions options;
  for (const char* name : {"edge", "depth"})
    options.branches.push_back(
        {.net = pipeline.control_nets.at(name), .latents = torch::randn({1, 4, 3, 2, 4})});
  const torch::NoGradGuard no_grad;
  const Network cached = dit_network(dit, options);
  const auto fresh = [&](const Tensor& x, const Tensor& words) {
    NetworkOptions own = options;
    own.texts = std::make_shared<TextCaches>();
    return dit_network(dit, own)(x, time, mask, words);
  };
  for (const double scale : {1.0, 0.5, -2.0}) {
    CHECK(cached(input * scale, time, mask, text).equal(fresh(input * scale, text)));
    CHECK(cached(input * scale, time, mask, negative).equal(fresh(input * scale, negative)));
  }
  CHECK_FALSE(fresh(input, text).allclose(fresh(input, negative)));
  // They are kept, not computed again: other weights change nothing until there is a new cache.
  const Tensor before = cached(input, time, mask, text);
  for (auto& item : dit.named_parameters())
    if (item.key().find(adapted ? "attn2.to_v.adapter" : "attn2.to_v") != std::string::npos)
      item.value().add_(1);
  CHECK(cached(input, time, mask, text).equal(before));
  CHECK_FALSE(fresh(input, text).allclose(before));
  // With gradients nothing is kept.
  const torch::AutoGradMode grad(true);
  CHECK(cached(input, time, mask, text).requires_grad());
}
