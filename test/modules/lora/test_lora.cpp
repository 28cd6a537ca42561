#include <catch2/catch.hpp>
#include <torch/autograd.h>

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/safetensors.h"
#include "modules/lora/files.h"
#include "modules/lora/lora.h"
#include "test/modules/hub/hostile.h"
#include "test/support/adapters.h"
#include "test/support/tiny_model.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::has;
using cosmos::test::randomise_adapters;
using cosmos::test::TempFolder;
using cosmos::test::tiny_model;
using cosmos::test::TinyModel;

namespace {

std::shared_ptr<TinyModel> adapted(const LoraConfig& config) {
  auto model = tiny_model();
  apply_lora(*model, config, 1);
  randomise_adapters(*model);
  return model;
}

std::vector<std::string> targets(const Json& target, const Json& exclude = nullptr) {
  const std::vector<std::string> modules = {"blocks.0.to_q", "blocks.0.to_k", "blocks.0.to_out.0",
                                            "blocks.1.to_q", "head.xto_q"};
  return target_modules({.target_modules = target, .exclude_modules = exclude}, modules);
}

}  // namespace

TEST_CASE("Targets are chosen as PEFT does, and by wildcard", "[lora]") {
  using Names = std::vector<std::string>;
  CHECK(targets(Json::array({"to_q"})) == Names{"blocks.0.to_q", "blocks.1.to_q"});
  CHECK(targets(Json::array({"to_out.0"})) == Names{"blocks.0.to_out.0"});
  CHECK(targets(Json::array({"blocks.0.*"})).size() == 3);
  CHECK(targets(Json::array({"*to_?"})).size() == 4);
  CHECK(targets("blocks\\.\\d\\.to_[qk]").size() == 3);
  CHECK(targets("All-Linear").size() == 5);
  CHECK(targets("all-linear", Json::array({"to_q"})).size() == 3);
  CHECK(has(error_of([] { targets(Json::array({"to_w"})); }), "did you mean to_"));
  CHECK(has(error_of([] { targets(Json::array({"to_q", "xyzzy"})); }), "to_out.0"));
  CHECK(has(error_of([] { targets("nothing"); }), "leaves no linear layer"));
  CHECK(has(error_of([] { targets("*.to_q"); }), "is not a regular expression"));
}

TEST_CASE("A fresh adapter changes nothing, freezes the base and counts itself", "[lora]") {
  for (const bool dora : {false, true}) {
    auto model = tiny_model();
    const Tensor x = torch::randn({3, 4});
    const Tensor before = model->forward(x);
    const LoraReport report = apply_lora(
        *model, {.rank = 2, .use_dora = dora, .target_modules = Json::array({"to_q", "proj"})});
    CHECK(report.layers == 4);
    CHECK(report.trainable_parameters == 2 * (2 * (4 + 4) + 2 * (4 + 8) + (dora ? 12 : 0)));
    CHECK(torch::allclose(model->forward(x), before, 1e-6, 1e-6));
    int64_t trainable = 0;
    for (const auto& parameter : model->parameters())
      if (parameter.requires_grad()) trainable += parameter.numel();
    CHECK(trainable == report.trainable_parameters);
    CHECK(!has_effect(*model));
    CHECK(has(error_of([&] { require_effect(*model); }), "changes nothing"));
    CHECK(has(error_of([&] { apply_lora(*model, {}); }), "already has an adapter"));
    CHECK(base_tensors(*model).size() == base_tensors(*tiny_model()).size());
  }
}

TEST_CASE("LoRA and DoRA compute their formulas", "[lora]") {
  const auto dora = GENERATE(false, true);
  Linear linear(5, 3);
  LoraAdapter adapter(*linear, {.rank = 2, .scaling = 1.7, .dora = dora}, 0);
  {
    torch::NoGradGuard no_grad;
    adapter.lora_B.normal_();
    if (dora) adapter.magnitude.mul_(1.3);
  }
  const Tensor x = torch::randn({4, 5});
  const Tensor got = adapter.adapt(x, linear->forward(x), *linear);
  Tensor weight = linear->weight + 1.7 * adapter.lora_B.mm(adapter.lora_A);
  if (dora) weight = weight * (adapter.magnitude / weight.norm(2, {1}).detach()).unsqueeze(1);
  const Tensor expected = torch::linear(x, weight, linear->bias);
  CHECK(torch::allclose(got, expected, 1e-5, 1e-5));
  CHECK(torch::allclose(adapter.forward(x, *linear), expected, 1e-5, 1e-5));
  const auto grads = [&](const Tensor& y) {
    return torch::autograd::grad({y.square().sum()}, adapter.parameters());
  };
  const auto a = grads(got), b = grads(expected);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(torch::allclose(a[i], b[i], 1e-4, 1e-4));
}

TEST_CASE("Merging keeps the outputs and unmerging restores the weights", "[lora]") {
  for (const bool dora : {false, true}) {
    auto model = adapted({.rank = 2, .alpha = 3, .use_rslora = true, .use_dora = dora});
    const Tensor x = torch::randn({3, 4});
    const Tensor with_adapter = model->forward(x);
    const Tensor weight = model->head->weight.clone();
    const MergedLora merged = merge_lora(*model);
    CHECK(lora_layers(*model).empty());
    CHECK(!torch::allclose(model->head->weight, weight));
    CHECK(torch::allclose(model->forward(x), with_adapter, 1e-4, 1e-5));
    unmerge_lora(*model, merged);
    CHECK(torch::allclose(model->head->weight, weight, 1e-5, 1e-6));
    CHECK(torch::allclose(model->forward(x), with_adapter, 1e-4, 1e-5));
  }
}

TEST_CASE("Dropout repeats for the same samples, whatever the batch around them", "[lora]") {
  auto model = adapted({.rank = 2, .dropout = 0.5});
  const Tensor x = torch::randn({2, 3, 4});
  model->train();
  CHECK(has(error_of([&] { model->forward(x); }), "set_dropout_samples"));
  set_dropout_samples(*model, 7, {10, 11});
  const Tensor both = model->forward(x);
  CHECK(torch::equal(model->forward(x), both));
  set_dropout_samples(*model, 7, {11});
  CHECK(torch::allclose(model->forward(x.slice(0, 1, 2)), both.slice(0, 1, 2), 1e-5, 1e-6));
  set_dropout_samples(*model, 7, {12, 13});
  CHECK(!torch::allclose(model->forward(x), both));
  set_dropout_samples(*model, 8, {10, 11});
  CHECK(!torch::allclose(model->forward(x), both));
  set_dropout_samples(*model, 8, {});
  const Tensor off = model->forward(x);
  model->eval();
  CHECK(torch::equal(model->forward(x), off));
}

TEST_CASE("DoRA with dropout scales the dropped input's product too", "[lora]") {
  auto model = adapted({.rank = 2, .dropout = 0.3, .use_dora = true});
  model->train();
  set_dropout_samples(*model, 7, {1});
  const Tensor y = model->forward(torch::randn({1, 4}));
  CHECK(torch::isfinite(y).all().item<bool>());
}

TEST_CASE("Adapters survive a PEFT folder and a diffusers file", "[lora]") {
  const auto dora = GENERATE(false, true);
  TempFolder folder;
  auto model = adapted({.rank = 3,
                        .alpha = 5,
                        .use_rslora = true,
                        .use_dora = dora,
                        .target_modules = Json::array({"to_q", "head"}),
                        .rank_pattern = {{"blocks.1.to_q", 2}},
                        .alpha_pattern = {{"head", 7}}});
  const Tensor x = torch::randn({3, 4});
  const Tensor expected = model->forward(x);
  save_peft_adapter(folder / "peft", *model, {.base_model = "nvidia/x"});
  save_diffusers_lora(folder / "diffusers", *model);
  for (const char* format : {"peft", "diffusers"}) {
    INFO(format);
    auto other = tiny_model();
    load_weights(*other, file_tensors(*model), "copy");
    load_adapter(*other, folder / format);
    CHECK(torch::equal(other->forward(x), expected));
    CHECK(lora_config(*other).rank_of("blocks.1.to_q") == 2);
  }
  const Json config = read_json(folder / "peft" / "adapter_config.json");
  CHECK(config["r"] == 3);
  CHECK(config["lora_alpha"] == 5);
  CHECK(config["target_modules"] == Json({"to_q", "head"}));
  CHECK(config["base_model_name_or_path"] == "nvidia/x");
  CHECK(load_safetensors(folder / "peft" / "adapter_model.safetensors")
            .count("base_model.model.blocks.0.to_q.lora_A.weight") == 1);
}

TEST_CASE("Old spellings and per-layer alphas are read", "[lora]") {
  TempFolder folder;
  const Tensor down = torch::randn({2, 8}), up = torch::randn({3, 2});
  save_safetensors(folder / "old.safetensors", {{"transformer.head.lora.down.weight", down},
                                                {"transformer.head.lora.up.weight", up},
                                                {"transformer.head.alpha", torch::tensor(6.0)}});
  auto model = tiny_model();
  load_adapter(*model, folder / "old.safetensors");
  CHECK(torch::allclose(lora_layers(*model).at(0).adapter->delta(), up.mm(down) * 3));
}

TEST_CASE("Adapter files that do not fit are refused and the model stays as it was", "[lora]") {
  TempFolder folder;
  const auto error_with = [&](const TensorMap& tensors) {
    save_safetensors(folder / "bad.safetensors", tensors);
    auto model = tiny_model();
    const std::string error = error_of([&] { load_adapter(*model, folder / "bad.safetensors"); });
    CHECK(lora_layers(*model).empty());
    return error;
  };
  const Tensor A = torch::ones({2, 8}), B = torch::ones({3, 2});
  CHECK(has(error_with({{"head.lora_A.weight", A}}), "lora_A without lora_B"));
  CHECK(has(error_with({{"heed.lora_A.weight", A}, {"heed.lora_B.weight", B}}),
            "did you mean head?"));
  CHECK(has(error_with({{"head.lora_A.weight", A}, {"head.lora_B.weight", torch::ones({4, 2})}}),
            "adapter has [4, 8], model wants [3, 8]"));
  CHECK(has(error_with({{"head.lora_A.weight", A}, {"head.lora_B.weight", torch::ones({3, 1})}}),
            "do not share a rank"));
  CHECK(has(error_with({{"head.weight", A}}), "is not a LoRA tensor"));
  CHECK(has(error_with({}), "no tensors"));
}

TEST_CASE("PEFT settings that we would compute differently are refused", "[lora]") {
  TempFolder folder;
  auto model = adapted({.rank = 2});
  save_peft_adapter(folder.path(), *model);
  const Json good = read_json(folder / "adapter_config.json");
  const auto error_with = [&](const Json& change) {
    Json config = good;
    config.update(change);
    write_json(folder / "adapter_config.json", config);
    auto other = tiny_model();
    return error_of([&] { load_adapter(*other, folder.path()); });
  };
  CHECK(error_with(Json::object()).empty());
  CHECK(has(error_with({{"lora_bias", true}}), "lora_bias"));
  CHECK(has(error_with({{"modules_to_save", {"head"}}}), "modules_to_save"));
  CHECK(has(error_with({{"bias", "all"}}), "bias"));
  CHECK(has(error_with({{"init_lora_weights", "pissa"}}), "changes the base"));
  CHECK(has(error_with({{"peft_type", "LOHA"}}), "only LORA"));
  CHECK(has(error_with({{"r", 4}}), "rank 4, the tensors have 2"));
  CHECK(has(error_with({{"use_dora", true}}), "lora_magnitude_vector"));
  CHECK(has(error_with({{"future_option", 3}}), "not supported"));
}
