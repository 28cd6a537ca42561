// Views beside each other: what a multi-view transformer may and may not mix.

#include <catch2/catch.hpp>

#include "modules/dit/multiview_transformer.h"
#include "modules/registry.h"
#include "test/support/golden.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;

Json tiny(const Json& changes = Json::object()) {
  Json config = {{"in_channels", 3},
                 {"out_channels", 2},
                 {"num_attention_heads", 2},
                 {"attention_head_dim", 12},
                 {"num_layers", 2},
                 {"text_embed_dim", 10},
                 {"adaln_lora_dim", 4},
                 {"max_size", {4, 8, 8}},
                 {"extra_pos_embed_type", nullptr},
                 {"state_t", 2},
                 {"n_cameras_emb", 4},
                 {"view_condition_dim", 3}};
  config.update(changes);
  return config;
}

std::shared_ptr<CosmosMultiViewTransformer3DModel> filled(const Json& config = tiny()) {
  auto model = std::make_shared<CosmosMultiViewTransformer3DModel>(
      MultiViewConfig::from_json(config, "config.json"));
  test::fill(*model);
  return model;
}

DitInputs inputs_of(int64_t views) {
  torch::manual_seed(4);
  return {.hidden_states = torch::randn({1, 2, 2 * views, 4, 4}),
          .timestep = torch::rand({1}),
          .encoder_hidden_states = torch::randn({1, 3 * views, 10}),
          .condition_mask = torch::zeros({1, 1, 2 * views, 4, 4})};
}

// The views of `x`, which stand along `dim`, in the order `order`.
Tensor reorder(const Tensor& x, int64_t dim, const std::vector<int64_t>& order) {
  const Tensors parts = x.chunk(static_cast<int64_t>(order.size()), dim);
  Tensors sorted;
  for (const int64_t i : order) sorted.push_back(parts[static_cast<std::size_t>(i)]);
  return torch::cat(sorted, dim);
}

}  // namespace

TEST_CASE("views may come in any order, if each is told which it is", "[dit][multiview]") {
  const torch::NoGradGuard no_grad;
  const auto model = filled();
  DitInputs in = inputs_of(3);
  in.view_indices = torch::tensor({{0, 3, 1}});
  const Tensor out = model->forward(in);
  CHECK(out.sizes() == in.hidden_states.sizes());
  const std::vector<int64_t> order = {2, 0, 1};
  DitInputs moved = in;
  moved.hidden_states = reorder(in.hidden_states, 2, order);
  moved.encoder_hidden_states = reorder(in.encoder_hidden_states, 1, order);
  moved.view_indices = reorder(in.view_indices, 1, order);
  CHECK(torch::allclose(model->forward(moved), reorder(out, 2, order), 1e-4, 1e-5));
  moved.view_indices = in.view_indices;  // told wrongly
  CHECK_FALSE(torch::allclose(model->forward(moved), reorder(out, 2, order), 1e-2, 1e-2));
}

TEST_CASE("a view's text reaches the others through self-attention alone", "[dit][multiview]") {
  const torch::NoGradGuard no_grad;
  // With one block what text changes comes after the only self-attention.
  const auto model = filled(tiny({{"num_layers", 1}}));
  DitInputs in = inputs_of(2);
  const Tensor before = model->forward(in);
  in.encoder_hidden_states = in.encoder_hidden_states.clone();
  in.encoder_hidden_states.narrow(1, 3, 3).neg_();
  const Tensor after = model->forward(in);
  CHECK(torch::equal(after.narrow(2, 0, 2), before.narrow(2, 0, 2)));
  CHECK_FALSE(torch::allclose(after.narrow(2, 2, 2), before.narrow(2, 2, 2), 1e-3, 1e-3));
  // Masked text is text that is not there.
  DitInputs masked = in;
  masked.attention_mask = torch::tensor({{true, true, false, true, true, false}});
  DitInputs shorter = in;
  shorter.encoder_hidden_states = torch::cat(
      {in.encoder_hidden_states.narrow(1, 0, 2), in.encoder_hidden_states.narrow(1, 3, 2)}, 1);
  CHECK(torch::allclose(model->forward(masked), model->forward(shorter), 1e-4, 1e-5));
}

TEST_CASE("a multi-view model starts as the base that it comes from", "[dit][multiview]") {
  const torch::NoGradGuard no_grad;
  Json config = tiny();
  for (const char* key : {"state_t", "n_cameras_emb", "view_condition_dim"}) config.erase(key);
  CosmosTransformer3DModel base(DitConfig::from_json(config, "config.json"));
  test::fill(base);
  const auto model = filled();
  model->start_from(base);
  DitInputs in = inputs_of(1);
  in.view_indices = torch::tensor({{2}});
  const Tensor views = model->forward(in);
  in.view_indices = Tensor();
  CHECK(torch::equal(views, base.forward(in)));
}

TEST_CASE("views that do not fit are refused", "[dit][multiview]") {
  register_builtin_models();
  const auto model = filled();
  const auto refused = [&](const std::function<void(DitInputs&)>& change, const char* part) {
    DitInputs in = inputs_of(2);
    change(in);
    CHECK_THROWS_WITH(model->forward(in), Contains(part));
  };
  refused([](DitInputs& in) { in = inputs_of(5); }, "expected 1 to 4 views of 2 latent frames");
  refused(
      [](DitInputs& in) {
        in.hidden_states = in.hidden_states.narrow(2, 0, 3);
        in.condition_mask = in.condition_mask.narrow(2, 0, 3);
      },
      "got 3 frames");
  refused(
      [](DitInputs& in) { in.encoder_hidden_states = in.encoder_hidden_states.narrow(1, 0, 5); },
      "encoder_hidden_states: expected the texts of 2 views");
  refused([](DitInputs& in) { in.view_indices = torch::tensor({{0, 4}}); }, "integers in [0, 4)");
  refused([](DitInputs& in) { in.view_indices = torch::tensor({{0, 1, 2}}); }, "[1 or B, views]");
  CHECK_THROWS_WITH(MultiViewConfig::from_json(tiny({{"state_t", 0}}), "c.json"),
                    Contains("c.json: state_t"));
  CHECK_THROWS_WITH(MultiViewConfig::from_json(tiny({{"extra_pos_embed_type", "learnable"}}), "c"),
                    Contains("learnable positions"));
  CosmosTransformer3DModel plain(model->config());
  DitInputs in = inputs_of(2);
  in.view_indices = torch::tensor({{0, 1}});
  CHECK_THROWS_WITH(plain.forward(in), Contains("CosmosTransformer3DModel takes none"));
}

}  // namespace cosmos::modules
