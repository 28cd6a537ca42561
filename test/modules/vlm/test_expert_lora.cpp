// LoRA on experts' stacked weights. Beside the models, since the sanitizers' build has none.

#include <catch2/catch.hpp>

#include "modules/hub/model_weights.h"
#include "modules/hub/safetensors.h"
#include "modules/lora/files.h"
#include "modules/lora/lora.h"
#include "modules/vlm/moe.h"
#include "test/modules/hub/hostile.h"
#include "test/support/adapters.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::has;
using cosmos::test::randomise_adapters;
using cosmos::test::TempFolder;

namespace {

// A mixture of 3 experts, 4 -> 6 -> 4, between which nothing but their weights differs.
class TinyMoe : public Model {
 public:
  TinyMoe() { block_ = register_module("mlp", SparseMoeBlock(options())); }
  static MoeOptions options() {
    return {.dim = 4, .inner_dim = 6, .experts = 3, .experts_per_token = 2};
  }
  std::string class_name() const override { return "TinyMoe"; }
  Json config_json() const override { return Json::object(); }
  TensorMap run(const std::string&, const TensorMap& inputs) override {
    return {{"sample", block_->forward(inputs.at("x"))}};
  }
  Tensor forward(const Tensor& x) { return block_->forward(x); }

 private:
  SparseMoeBlock block_{nullptr};
};

const LoraConfig kOfExperts{.rank = 2,
                            .alpha = 3,
                            .target_modules = Json::array({"gate"}),
                            .target_parameters = {"experts.gate_up_proj", "down_proj"},
                            .rank_pattern = {{"gate_up_proj", 4}}};

}  // namespace

TEST_CASE("Stacked weights of experts get adapters in PEFT's layout", "[lora][experts]") {
  torch::manual_seed(4);
  TinyMoe model;
  const Tensor x = torch::randn({5, 4});
  const Tensor before = model.forward(x).detach();
  const LoraReport report = apply_lora(model, kOfExperts, 1);
  CHECK(report.layers == 3);
  CHECK(report.trainable_parameters ==
        2 * (4 + 3) + 3 * 4 * (4 + 12) + 3 * 2 * (6 + 4));  // router, gate and up, down
  CHECK(torch::allclose(model.forward(x), before));
  CHECK_FALSE(has_effect(model));

  randomise_adapters(model);
  const auto stacks = lora_stacks(model);
  REQUIRE(stacks.size() == 2);
  CHECK(stacks[0].name == "mlp.experts.gate_up_proj");
  // PEFT: delta_e = s sum_r B[o, r E + e] A[e r + r, i]
  const Tensor A = stacks[0].adapter->lora_A, B = stacks[0].adapter->lora_B;
  const Tensor delta = stacks[0].adapter->delta();
  double expected = 0;
  for (int64_t r = 0; r < 4; ++r)
    expected += B[5][r * 3 + 2].item<double>() * A[2 * 4 + r][1].item<double>();
  CHECK(delta[2][5][1].item<double>() == Approx(expected * 3 / 4).epsilon(1e-5));

  // Only adapters get gradients, and what they compute is what merging writes down.
  const Tensor adapted = model.forward(x);
  adapted.square().sum().backward();
  for (const auto& stack : stacks) {
    CHECK(stack.adapter->lora_A.grad().norm().item<double>() > 0);
    CHECK_FALSE(stack.stack.weight.grad().defined());
  }
  CHECK((adapted - before).norm().item<double>() > 1e-2);
  const MergedLora merged = merge_lora(model);
  CHECK(lora_stacks(model).empty());
  CHECK(torch::allclose(model.forward(x), adapted, 1e-4, 1e-5));
  unmerge_lora(model, merged);
  CHECK(torch::allclose(model.forward(x), adapted, 1e-4, 1e-5));

  // PEFT wraps what is registered first innermost.
  TempFolder folder;
  save_peft_adapter(folder / "peft", model);
  const TensorMap file = load_safetensors(folder / "peft" / "adapter_model.safetensors");
  CHECK(file.at("base_model.model.mlp.experts.base_layer.lora_A.weight").equal(A));
  CHECK(file.at("base_model.model.mlp.experts.lora_A.weight").equal(stacks[1].adapter->lora_A));
  TinyMoe other;
  load_weights(other, file_tensors(model), "copy");
  load_adapter(other, folder / "peft");
  CHECK(torch::allclose(other.forward(x), adapted, 1e-4, 1e-5));
}

TEST_CASE("Adapters of experts that cannot be are refused", "[lora][experts]") {
  TinyMoe model;
  LoraConfig config = kOfExperts;
  config.target_parameters = {"gate_up_prj"};
  CHECK(has(error_of([&] { apply_lora(model, config); }), "did you mean gate_up_proj"));
  config = kOfExperts;
  config.dropout = 0.1;
  CHECK(has(error_of([&] { apply_lora(model, config); }), "expected dropout 0"));
  TempFolder folder;
  apply_lora(model, kOfExperts);
  randomise_adapters(model);
  save_peft_adapter(folder / "peft", model);
  TensorMap tensors = load_safetensors(folder / "peft" / "adapter_model.safetensors");
  tensors.erase("base_model.model.mlp.experts.base_layer.lora_A.weight");
  tensors.erase("base_model.model.mlp.experts.base_layer.lora_B.weight");
  save_safetensors(folder / "peft" / "adapter_model.safetensors", tensors, {});
  TinyMoe other;
  CHECK(has(error_of([&] { load_adapter(other, folder / "peft"); }),
            "there is no mlp.experts.base_layer.lora_A.weight"));
  CHECK(lora_stacks(other).empty());
}
