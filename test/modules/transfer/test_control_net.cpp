// The control net against diffusers' recorded answers, its errors, how it starts.

#include "modules/transfer/control_net.h"
#include "test/support/golden_model.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;

DitConfig base_config() {
  DitConfig config;
  config.in_channels = 3;
  config.out_channels = 2;
  config.num_attention_heads = 2;
  config.attention_head_dim = 12;
  config.num_layers = 3;
  config.mlp_ratio = 2;
  config.text_embed_dim = 10;
  config.adaln_lora_dim = 4;
  config.max_size = {4, 8, 8};
  config.extra_pos_embed_type = std::nullopt;
  config.controlnet_block_every_n = 2;
  return config;
}

ControlNetInputs tiny_inputs() {
  return {.controls_latents = torch::randn({1, 2, 2, 4, 4}),
          .latents = torch::randn({1, 2, 2, 4, 4}),
          .timestep = torch::rand({1}),
          .encoder_hidden_states = torch::randn({1, 3, 10}),
          .condition_mask = torch::zeros({1, 1, 2, 4, 4})};
}

}  // namespace

TEST_CASE("the control net gives diffusers' residuals and gradients", "[transfer][golden]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/control_net.safetensors");
  int cases = 0;
  for (const auto& [name, text] : golden.metadata()) {
    if (name == "format") continue;
    INFO(name);
    const Json golden_case = Json::parse(text);
    CosmosControlNetModel net(ControlNetConfig::from_json(golden_case["config"], name));
    test::check_golden(net, golden, name, test::golden_inputs(golden_case, "latents"));
    ++cases;
  }
  CHECK(cases == 2);
}

TEST_CASE("a fresh control net of a base changes nothing and holds the base's weights",
          "[transfer]") {
  torch::manual_seed(2);
  CosmosTransformer3DModel base(base_config());
  CosmosControlNetModel net(ControlNetConfig::of_base(base.config(), 2, 6));
  net.copy_base(base);
  const auto theirs = base.named_parameters();
  const auto ours = net.named_parameters();
  CHECK(ours["patch_embed_base.proj.weight"].equal(theirs["patch_embed.proj.weight"]));
  CHECK(ours["control_blocks.1.ff.net.2.weight"].equal(
      theirs["transformer_blocks.1.ff.net.2.weight"]));
  const Tensors residuals = net.forward(tiny_inputs());
  REQUIRE(residuals.size() == 2);
  CHECK(residuals[1].sizes() == at::IntArrayRef({1, 8, 24}));
  CHECK(residuals[0].abs().max().item<double>() == 0);
  CHECK(residuals[1].abs().max().item<double>() == 0);

  DitConfig other = base_config();
  other.text_embed_dim = 8;
  CosmosTransformer3DModel unfit(other);
  CHECK_THROWS_WITH(net.copy_base(unfit), Contains("to_k") && Contains("control_blocks.0"));
}

TEST_CASE("scales multiply each block's residual", "[transfer]") {
  torch::NoGradGuard no_grad;
  CosmosControlNetModel net(ControlNetConfig::of_base(base_config(), 2, 6));
  test::fill(net);
  ControlNetInputs inputs = tiny_inputs();
  const Tensors once = net.forward(inputs);
  inputs.conditioning_scale = {0.5, -2, 7};  // the third is cut off
  const Tensors scaled = net.forward(inputs);
  CHECK(test::relative(scaled[0], 0.5 * once[0]) < 1e-6);
  CHECK(test::relative(scaled[1], -2 * once[1]) < 1e-6);
  inputs.conditioning_scale = {3};
  CHECK(test::relative(net.forward(inputs)[1], 3 * once[1]) < 1e-6);
}

TEST_CASE("the control net refuses what does not fit, by name", "[transfer]") {
  torch::NoGradGuard no_grad;
  CosmosControlNetModel net(ControlNetConfig::of_base(base_config(), 2, 6));
  const auto with = [&](auto change) {
    ControlNetInputs inputs = tiny_inputs();
    change(inputs);
    return net.forward(inputs);
  };
  CHECK_THROWS_WITH(with([](auto& in) {
                      in.controls_latents = torch::randn({1, 7, 2, 4, 4});
                    }),
                    Contains("controls_latents: 7 channels") && Contains("room for 6"));
  CHECK_THROWS_WITH(with([](auto& in) {
                      in.controls_latents = torch::randn({1, 2, 3, 4, 4});
                    }),
                    Contains("controls_latents: expected [B, C', T, H, W]"));
  CHECK_THROWS_WITH(with([](auto& in) { in.condition_mask = Tensor(); }),
                    Contains("no condition mask") && Contains("latent_channels"));
  CHECK_THROWS_WITH(net.run("forward", {{"latent", torch::zeros({1})}}),
                    Contains("did you mean latents?"));
  Json config = net.config_json();
  config["model_channels"] = 2048;
  CHECK_THROWS_WITH(ControlNetConfig::from_json(config, "config.json"),
                    Contains("config.json: model_channels") && Contains("24, got 2048"));
  CHECK(ControlNetConfig::from_json(net.config_json(), "config.json").to_json() ==
        net.config_json());
}

}  // namespace cosmos::modules
