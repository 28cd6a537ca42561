#include <catch2/catch.hpp>
#include <set>
#include <torch/autograd.h>

#include "modules/core/init.h"
#include "modules/dit/transformer.h"
#include "modules/fp8/fp8.h"
#include "modules/lora/lora.h"

using namespace cosmos;
using namespace cosmos::modules;

namespace {

/// A model of Linears in two numbered blocks, one with sides that 16 does not divide, and a head.
struct Layers : Model {
  Layers() {
    for (int i = 0; i < 2; ++i) {
      auto block = std::make_shared<torch::nn::Module>();
      block->register_module("up", Linear(32, 48));
      block->register_module("norm_in", Linear(32, 32));
      block->register_module("odd", Linear(32, 24));
      register_module("blocks_" + std::to_string(i), std::make_shared<torch::nn::Module>())
          ->register_module(std::to_string(i), block);
    }
    register_module("head", Linear(32, 64));
  }
  Linear at(const std::string& name) const {
    for (const auto& [path, linear] : named_linears(*this))
      if (path == name) return linear;
    throw Error("no " + name);
  }
  std::string class_name() const override { return "Layers"; }
  Json config_json() const override { return {}; }
  TensorMap run(const std::string&, const TensorMap&) override { return {}; }
};

std::set<std::string> names_of(const Fp8Layers& layers) {
  std::set<std::string> names;
  for (const auto& layer : layers.linears()) names.insert(layer.name);
  return names;
}

const std::string kUp = "blocks_0.0.up";

}  // namespace

TEST_CASE("8-bit products are taken within blocks, by name, where 16 divides", "[fp8]") {
  CHECK(names_of(*apply_fp8(Layers(), {})) == std::set<std::string>{kUp, "blocks_1.1.up"});
  CHECK(names_of(*apply_fp8(Layers(), {.target_modules = {"head", "*_1.*up"}})) ==
        std::set<std::string>{"head", "blocks_1.1.up"});
  CHECK_THROWS_WITH(apply_fp8(Layers(), {.target_modules = {"upp"}}),
                    "fp8.target_modules: no linear layer is called upp (did you mean up?)");
  CHECK_THROWS_WITH(apply_fp8(Layers(), {.target_modules = {"odd"}}),
                    Catch::Contains("of the 7 linear layers of Layers none is targeted"));
}

TEST_CASE("the transformer's products are 8-bit, its modulations and ends are not", "[fp8]") {
  const SkipInit skip;
  DitConfig config;
  config.num_layers = 1;
  config.num_attention_heads = 2;
  config.attention_head_dim = 16;
  config.text_embed_dim = 32;
  const CosmosTransformer3DModel model(config);
  CHECK(names_of(*apply_fp8(model, {})) ==
        std::set<std::string>{
            "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn1.to_k",
            "transformer_blocks.0.attn1.to_v", "transformer_blocks.0.attn1.to_out.0",
            "transformer_blocks.0.attn2.to_q", "transformer_blocks.0.attn2.to_k",
            "transformer_blocks.0.attn2.to_v", "transformer_blocks.0.attn2.to_out.0",
            "transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2"});
}

TEST_CASE("a Linear in 8 bits is fp8_linear of its input, with an adapter's update beside",
          "[fp8]") {
  torch::manual_seed(1);
  for (const char* scaling : {"current", "block"}) {
    Layers model;
    const auto fp8 = apply_fp8(model, {.scaling = scaling, .gradient = "e4m3"});
    Linear up = model.at(kUp);
    const Tensor x = torch::randn({5, 32}).requires_grad_();
    const ops::Fp8Recipe recipe{.scaling = std::string(scaling) == "block"
                                               ? ops::Fp8Scaling::kBlock
                                               : ops::Fp8Scaling::kTensor,
                                .gradient = at::kFloat8_e4m3fn};
    const Tensor want = ops::fp8_linear(x, up->weight, up->bias, recipe);
    const Tensor got = up->forward(x), seed = torch::randn({5, 48});
    CHECK(torch::equal(got, want));
    const auto grads = torch::autograd::grad({got}, {x, up->weight}, {seed});
    const auto wanted = torch::autograd::grad({want}, {x, up->weight}, {seed});
    CHECK(torch::equal(grads[0], wanted[0]));
    CHECK(torch::equal(grads[1], wanted[1]));
    CHECK_FALSE(torch::allclose(got, torch::linear(x, up->weight, up->bias), 1e-4, 1e-4));

    apply_lora(model, {.rank = 2, .target_modules = {kUp}});
    torch::NoGradGuard no_grad;
    const auto adapter = lora_layers(model)[0].adapter;
    adapter->lora_B.normal_();
    const Tensor update = torch::linear(torch::linear(x, adapter->lora_A), adapter->lora_B) * 8;
    CHECK(torch::allclose(up->forward(x), want + update, 1e-5, 1e-5));
  }
}

TEST_CASE("delayed scaling takes the first step's own scales, then those of the history", "[fp8]") {
  torch::manual_seed(2);
  Layers model;
  const auto fp8 = apply_fp8(model, {.scaling = "delayed", .history = 2});
  Linear up = model.at(kUp);
  const Tensor x = torch::randn({6, 32});
  const auto current = [&](const Tensor& in) {
    return ops::fp8_linear(in, up->weight, up->bias, {});
  };
  const Tensor history = fp8->state().at("amax_history"), scale = fp8->state().at("scale");
  CHECK(torch::equal(up->forward(x), current(x)));
  CHECK(history[0][0][0].item<float>() == x.abs().max().item<float>());
  {
    const torch::NoGradGuard no_grad;  // validation
    up->forward(x * 3);
  }
  CHECK(history[0][0][0].item<float>() == x.abs().max().item<float>());

  int calls = 0;
  fp8->advance([&](const Tensor& amax) {  // another rank saw twice as much in the first layer
    ++calls;
    CHECK(amax.sizes() == at::IntArrayRef({2, 3}));
    amax[0].mul_(2);
  });
  CHECK(calls == 1);
  CHECK(scale[0][0].item<float>() == Approx(x.abs().max().item<float>() * 2 / 448));
  CHECK(scale[1][0].item<float>() == 1);
  // A larger input saturates at the range of that scale.
  const Tensor saturated = up->forward(x * 100);
  CHECK_FALSE(torch::allclose(saturated, current(x * 100)));
  const auto bounds = x.abs().max() * 2;
  CHECK(torch::allclose(saturated, current((x * 100).clamp(-bounds, bounds)), 1e-3, 1e-3));

  // Another model goes on from the state.
  Layers other;
  {
    const torch::NoGradGuard no_grad;
    for (const auto& item : model.named_parameters())
      other.named_parameters()[item.key()].copy_(item.value());
  }
  const auto resumed = apply_fp8(other, {.scaling = "delayed", .history = 2});
  for (const auto& [name, tensor] : resumed->state()) Tensor(tensor).copy_(fp8->state().at(name));
  CHECK(torch::equal(other.at(kUp)->forward(x), current(x)));  // not told yet
  resumed->state_was_loaded();
  CHECK(torch::equal(other.at(kUp)->forward(x * 100), saturated));
  CHECK(apply_fp8(Layers(), {})->state().empty());
}
