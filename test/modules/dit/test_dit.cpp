// The DiT against diffusers' recorded answers, its config, its errors, its seams.

#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "modules/core/init.h"
#include "modules/dit/transformer.h"
#include "modules/hub/safetensors.h"
#include "test/support/golden_model.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;
using test::fill;
using test::relative;
using test::sorted_parameters;

Json tiny_config() {
  return {{"in_channels", 2},
          {"out_channels", 2},
          {"num_attention_heads", 2},
          {"attention_head_dim", 12},
          {"num_layers", 2},
          {"mlp_ratio", 2.0},
          {"text_embed_dim", 10},
          {"adaln_lora_dim", 4},
          {"max_size", {4, 8, 8}},
          {"patch_size", {1, 2, 2}},
          {"extra_pos_embed_type", nullptr}};
}

std::shared_ptr<CosmosTransformer3DModel> make(const Json& config) {
  return std::make_shared<CosmosTransformer3DModel>(DitConfig::from_json(config, "config.json"));
}

DitInputs tiny_inputs(int64_t frames = 2) {
  return {.hidden_states = torch::randn({1, 2, frames, 4, 4}),
          .timestep = torch::rand({1}),
          .encoder_hidden_states = torch::randn({1, 3, 10})};
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("the DiT gives diffusers' outputs and gradients", "[dit][golden]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/dit.safetensors");
  int cases = 0;
  for (const auto& [name, text] : golden.metadata()) {
    if (name == "format") continue;
    INFO(name);
    const Json golden_case = Json::parse(text);
    auto model = make(golden_case["config"]);
    test::check_golden(*model, golden, name, test::golden_inputs(golden_case, "hidden_states"));
    ++cases;
  }
  CHECK(cases == 3);
}

TEST_CASE("a DiT config keeps what it does not know and names what is wrong", "[dit][config]") {
  Json json = tiny_config();
  json["_class_name"] = "CosmosTransformer3DModel";
  json["_diffusers_version"] = "0.34.0";
  json["someone_elses_key"] = {1, 2};
  const DitConfig config = DitConfig::from_json(json, "config.json");
  const Json back = config.to_json();
  for (const auto& [key, value] : json.items()) CHECK(back[key] == value);
  CHECK(back["crossattn_proj_in_channels"] == 1024);
  CHECK(back["controlnet_block_every_n"].is_null());
  CHECK(DitConfig::from_json(back, "config.json").to_json() == back);
  CHECK(DitConfig().to_json()["extra_pos_embed_type"] == "learnable");

  const auto refused = [](const char* key, const Json& value) {
    Json json = tiny_config();
    json[key] = value;
    return error_of([&] { DitConfig::from_json(json, "config.json"); });
  };
  CHECK_THAT(refused("num_layers", 0), Contains("num_layers") && Contains("positive"));
  CHECK_THAT(refused("num_layers", "two"), Contains("config.json") && Contains("whole number"));
  CHECK_THAT(refused("attention_head_dim", 9), Contains("attention_head_dim"));
  CHECK_THAT(refused("attention_head_dim", 8), Contains("attention_head_dim"));
  CHECK_THAT(refused("patch_size", {1, 2}), Contains("3 numbers"));
  CHECK_THAT(refused("extra_pos_embed_type", "sincos"), Contains("learnable"));
  CHECK_THAT(refused("img_context_dim_in", 5), Contains("img_context_dim_out"));
}

TEST_CASE("the DiT refuses inputs that do not fit, by name", "[dit]") {
  torch::NoGradGuard no_grad;
  auto model = make(tiny_config());
  const auto refused = [&](const std::function<void(DitInputs&)>& change) {
    DitInputs inputs = tiny_inputs();
    change(inputs);
    return error_of([&] { model->forward(inputs); });
  };
  CHECK(refused([](DitInputs&) {}) == "no error");
  CHECK_THAT(refused([](DitInputs& in) {
               in.hidden_states = torch::randn({1, 2, 4, 4});
             }),
             Contains("hidden_states"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.hidden_states = torch::randn({1, 3, 2, 4, 4});
             }),
             Contains("in_channels"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.hidden_states = torch::randn({1, 2, 2, 4, 5});
             }),
             Contains("patches"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.hidden_states = torch::randn({1, 2, 9, 4, 4});
             }),
             Contains("max_size"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.timestep = torch::rand({1, 1, 3, 1, 1});
             }),
             Contains("timestep"));
  CHECK_THAT(refused([](DitInputs& in) { in.timestep = Tensor(); }), Contains("timestep: missing"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.encoder_hidden_states = torch::randn({1, 3, 11});
             }),
             Contains("encoder_hidden_states") && Contains("[1, -1, 10]"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.attention_mask = torch::ones({1, 3}, torch::kLong);
             }),
             Contains("bool"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.img_context = torch::randn({1, 2, 5});
             }),
             Contains("img_context_dim_in is null"));
  CHECK_THAT(refused([](DitInputs& in) {
               in.block_controlnet_hidden_states = {torch::randn({1, 8, 24})};
             }),
             Contains("controlnet_block_every_n"));
  CHECK_THAT(refused([](DitInputs& in) { in.fps = 0; }), Contains("fps"));

  const auto named = [&](const char* name, const Tensor& value) {
    TensorMap inputs = {{"hidden_states", torch::randn({1, 2, 2, 4, 4})},
                        {"timestep", torch::rand({1})},
                        {"encoder_hidden_states", torch::randn({1, 3, 10})}};
    inputs[name] = value;
    return error_of([&] { model->run("forward", inputs); });
  };
  CHECK_THAT(named("hidden_state", torch::zeros({1})), Contains("did you mean hidden_states"));
  CHECK_THAT(named("block_controlnet_hidden_states.1", torch::zeros({1})), Contains("holes"));
  CHECK_THAT(error_of([&] { model->run("encode", {}); }), Contains("no method encode"));
  CHECK_THAT(error_of([&] { model->run("forward", {}); }), Contains("hidden_states: missing"));
}

TEST_CASE("equal timesteps per frame give what one per sample gives", "[dit]") {
  torch::NoGradGuard no_grad;
  auto model = make(tiny_config());
  fill(*model);
  DitInputs inputs = tiny_inputs();
  const Tensor once = model->forward(inputs);
  inputs.timestep = inputs.timestep.view({1, 1, 1, 1, 1}).expand({1, 1, 2, 1, 1}).clone();
  CHECK(relative(model->forward(inputs), once) < 1e-6);
  inputs.timestep[0][0][1] += 1;
  CHECK(relative(model->forward(inputs), once) > 1e-3);
}

TEST_CASE("an absent padding mask is a mask of zeros, and masks may differ by sample", "[dit]") {
  torch::NoGradGuard no_grad;
  Json config = tiny_config();
  config["concat_padding_mask"] = true;
  auto model = make(config);
  fill(*model);
  DitInputs inputs{.hidden_states = torch::randn({2, 2, 1, 4, 4}),
                   .timestep = torch::rand({2}),
                   .encoder_hidden_states = torch::randn({2, 3, 10})};
  const Tensor none = model->forward(inputs);
  inputs.padding_mask = torch::zeros({1, 1, 32, 32});
  CHECK(torch::equal(model->forward(inputs), none));
  inputs.padding_mask = torch::zeros({2, 1, 32, 32});
  inputs.padding_mask[1].fill_(1);
  const Tensor mixed = model->forward(inputs);
  CHECK(relative(mixed[0], none[0]) < 1e-5);
  CHECK(relative(mixed[1], none[1]) > 1e-3);
}

TEST_CASE("every block goes through the runner with all that carries gradients", "[dit][blocks]") {
  // Recomputes from detached copies: gradients arrive only through the listed inputs.
  struct Detach : BlockRunner {
    std::vector<std::string> names;
    std::set<std::string> owned;
    int64_t leaves = 0;
    Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                const BlockFn& fn) override {
      names.push_back(name);
      for (const auto& item : block.named_parameters()) owned.insert(name + "." + item.key());
      Tensors copies;
      for (const auto& input : inputs) {
        copies.push_back(input.detach().requires_grad_(input.requires_grad()));
        leaves += input.requires_grad();
      }
      return fn(copies);
    }
  };
  Json config = tiny_config();
  config["extra_pos_embed_type"] = "learnable";
  config["concat_padding_mask"] = false;
  config["use_crossattn_projection"] = true;
  config["crossattn_proj_in_channels"] = 10;
  config["encoder_hidden_states_channels"] = 10;
  auto model = make(config);
  auto runner = std::make_shared<Detach>();
  model->set_block_runner(runner);
  model->forward(tiny_inputs()).sum().backward();

  CHECK(runner->names == std::vector<std::string>{"time_embed", "crossattn_proj",
                                                  "learnable_pos_embed", "patch_embed",
                                                  "transformer_blocks.0", "transformer_blocks.1",
                                                  "norm_out", "proj_out"});
  // Blocks: x, emb, temb, text, positions; norm_out: x, emb, temb; proj_out: x.
  CHECK(runner->leaves == 2 * 5 + 3 + 1);
  // Nothing behind a detached input got a gradient: no tensor slipped in by capture.
  for (const auto& [name, weight] : sorted_parameters(*model)) {
    INFO(name);
    CHECK(runner->owned.count(name) == 1);
    CHECK(weight.grad().defined() == (name == "proj_out.weight"));
  }
}

TEST_CASE("a fresh DiT starts as Cosmos does", "[dit][init]") {
  torch::manual_seed(3);
  Json config = tiny_config();
  config["num_attention_heads"] = 8;
  config["extra_pos_embed_type"] = "learnable";
  const auto weights = sorted_parameters(*make(config));
  CHECK(weights.at("transformer_blocks.1.norm2.linear_2.weight").abs().max().item<double>() == 0);
  CHECK(weights.at("norm_out.linear_2.weight").abs().max().item<double>() == 0);
  CHECK(torch::equal(weights.at("transformer_blocks.0.attn1.norm_q.weight"), torch::ones({12})));
  const Tensor q = weights.at("transformer_blocks.0.attn1.to_q.weight");  // [96, 96]
  CHECK(q.std().item<double>() == Approx(1 / std::sqrt(96.0)).epsilon(0.05));
  CHECK(q.abs().max().item<double>() <= 3.001 / std::sqrt(96.0));
  CHECK(weights.at("learnable_pos_embed.pos_emb_t").abs().max().item<double>() > 0);
  CHECK(weights.at("time_embed.t_embedder.linear_2.weight").std().item<double>() > 0.05);

  auto model = make(tiny_config());
  CHECK(model->keeps_float32("learnable_pos_embed.pos_emb_t"));
  CHECK_FALSE(model->keeps_float32("patch_embed.proj.weight"));
}

}  // namespace cosmos::modules
