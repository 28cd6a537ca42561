// Models that diffusers lacks against what the formulas give (test/reference/plain.py).

#include <catch2/catch.hpp>

#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "modules/transfer/transfer1.h"
#include "test/support/golden_model.h"

namespace cosmos::modules {

using Catch::Matchers::Contains;

TEST_CASE("Transfer1's branch, the action and the multi-view model give what their formulas say",
          "[transfer][golden]") {
  register_builtin_models();
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/plain.safetensors");
  int cases = 0;
  for (const auto& [name, text] : golden.metadata()) {
    if (name == "format") continue;
    INFO(name);
    const Json golden_case = Json::parse(text);
    const auto model = make_model(golden_case["config"], name);
    test::check_golden(*model, golden, name,
                       test::golden_inputs(golden_case, golden_case["latents"]));
    const Json back = model->config_json();
    for (const auto& [key, value] : golden_case["config"].items()) CHECK(back[key] == value);
    ++cases;
  }
  CHECK(cases == 4);
}

TEST_CASE("a fresh Transfer1 branch changes nothing, and its residuals are for the first blocks",
          "[transfer]") {
  register_builtin_models();
  torch::manual_seed(1);
  const auto model = make_model({{"_class_name", "CosmosTransfer1ControlNetModel"},
                                 {"in_channels", 3},
                                 {"hint_channels", 4},
                                 {"num_control_blocks", 2},
                                 {"num_attention_heads", 2},
                                 {"attention_head_dim", 12},
                                 {"text_embed_dim", 10},
                                 {"adaln_lora_dim", 4},
                                 {"max_size", {4, 8, 8}}},
                                "config.json");
  auto& net = dynamic_cast<ControlModel&>(*model);
  CHECK(net.first_blocks_only());
  ControlNetInputs inputs{.controls_latents = torch::randn({1, 2, 2, 4, 4}),
                          .latents = torch::randn({1, 2, 2, 4, 4}),
                          .timestep = torch::rand({1}),
                          .encoder_hidden_states = torch::randn({1, 3, 10}),
                          .condition_mask = torch::zeros({1, 1, 2, 4, 4})};
  const Tensors residuals = net.forward(inputs);
  REQUIRE(residuals.size() == 2);
  for (const Tensor& residual : residuals) CHECK(residual.abs().max().item<double>() == 0);
  inputs.img_context = torch::zeros({1, 2, 5});
  CHECK_THROWS_WITH(net.forward(inputs), Contains("img_context"));
}

TEST_CASE("actions are asked for, counted, and refused where they mean nothing", "[dit]") {
  register_builtin_models();
  Json config = {{"_class_name", "CosmosActionTransformer3DModel"},
                 {"in_channels", 2},
                 {"out_channels", 2},
                 {"num_attention_heads", 2},
                 {"attention_head_dim", 12},
                 {"num_layers", 1},
                 {"text_embed_dim", 10},
                 {"adaln_lora_dim", 4},
                 {"max_size", {4, 8, 8}},
                 {"extra_pos_embed_type", nullptr},
                 {"action_dim", 3},
                 {"num_actions", 2}};
  TensorMap inputs = {{"hidden_states", torch::randn({1, 2, 3, 4, 4})},
                      {"timestep", torch::rand({1})},
                      {"encoder_hidden_states", torch::randn({1, 3, 10})}};
  const auto model = make_model(config, "config.json");
  CHECK_THROWS_WITH(model->run("forward", inputs), Contains("action: missing"));
  inputs["action"] = torch::randn({1, 5, 3});
  CHECK_THROWS_WITH(model->run("forward", inputs), Contains("action: expected [B, actions"));
  inputs["action"] = torch::randn({1, 4, 3});
  CHECK(model->run("forward", inputs).at("sample").sizes() == at::IntArrayRef({1, 2, 3, 4, 4}));
  config["_class_name"] = "CosmosTransformer3DModel";
  CHECK_THROWS_WITH(make_model(config, "config.json")->run("forward", inputs),
                    Contains("CosmosTransformer3DModel takes none"));
}

}  // namespace cosmos::modules
