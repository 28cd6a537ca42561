// T5's encoder against transformers' numbers, its files, its errors.

#include <catch2/catch.hpp>
#include <fstream>

#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/hub/weight_folder.h"
#include "modules/registry.h"
#include "modules/text/t5/encoder.h"
#include "test/modules/hub/hostile.h"
#include "test/modules/tokenizer/tokenizers.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::TempFolder;

namespace {

const Json& cases() {
  static const Json json = [] {
    std::ifstream file(COSMOS_SOURCE_DIR "/test/golden/t5.json");
    return Json::parse(file);
  }();
  return json;
}

std::shared_ptr<T5EncoderModel> make(const Json& config) {
  auto model = std::make_shared<T5EncoderModel>(config);
  model->eval();
  test::fill(*model);
  // The tied embedding again under its first name, which the golden file has.
  const torch::NoGradGuard no_grad;
  int64_t bytes = 0;
  for (const unsigned char c : std::string("shared.weight")) bytes += c;
  Tensor shared = model->named_parameters()["shared.weight"];
  shared.copy_(test::wave(shared.sizes(), static_cast<double>(bytes % 97)) * 1.4 /
               std::sqrt(static_cast<double>(shared.size(1))));
  return model;
}

Tensor ids() {
  return (torch::arange(2 * 17).view({2, 17}) * 7) % 20;
}

Tensor mask() {
  Tensor mask = torch::ones({2, 17}, torch::kInt64);
  mask[1].slice(0, 11).zero_();
  return mask;
}

}  // namespace

TEST_CASE("T5EncoderModel gives the numbers of transformers", "[text][golden]") {
  for (const Json& item : cases()) {
    INFO(item["name"]);
    auto model = make(item["config"]);
    const Tensor hidden = model->run(
        "forward", {{"input_ids", ids()}, {"attention_mask", mask()}})["last_hidden_state"];
    const Tensor flat = hidden.detach().flatten();
    const Tensor kept = flat.slice(0, 0, flat.numel(), std::max<int64_t>(1, flat.numel() / 24));
    const Tensor want = torch::tensor(item["hidden"].get<std::vector<double>>(), torch::kFloat32);
    REQUIRE(kept.sizes() == want.sizes());
    CHECK((kept - want).norm().item<double>() < 2e-5 * want.norm().item<double>());

    hidden.square().mean().backward();
    std::map<std::string, Tensor> gradients;  // by name, the tied embedding under its first one
    for (const auto& entry : model->named_parameters())
      if (entry.key() != "encoder.embed_tokens.weight")
        gradients[entry.key()] = entry.value().grad();
    const std::vector<double> norms = item["grad_norms"];
    REQUIRE(gradients.size() == norms.size());
    std::size_t i = 0;
    for (const auto& [name, grad] : gradients) {
      INFO(name);
      REQUIRE(grad.defined());
      CHECK(grad.norm().item<double>() == Approx(norms[i++]).epsilon(2e-4).margin(1e-7));
    }
  }
}

TEST_CASE("what padding holds does not reach T5's other tokens", "[text]") {
  torch::NoGradGuard no_grad;
  auto model = make(cases()[0]["config"]);
  Tensor other = ids();
  other[1].slice(0, 11).fill_(3);
  const Tensor a = model->forward(ids(), mask()), b = model->forward(other, mask());
  CHECK(torch::equal(a[0], b[0]));
  CHECK((a[1].slice(0, 0, 11) - b[1].slice(0, 0, 11)).abs().max().item<double>() == 0);
  CHECK((a[1].slice(0, 11) - b[1].slice(0, 11)).abs().max().item<double>() > 0);
}

TEST_CASE("T5 folders load and are written under transformers' keys", "[text]") {
  torch::NoGradGuard no_grad;
  register_builtin_models();
  auto model = make(cases()[0]["config"]);
  TempFolder folder;
  save_model(folder.path(), *model);
  const WeightFolder saved(folder.path());
  CHECK(saved.base_name() == kTransformersWeights);
  CHECK(saved.contains("shared.weight"));
  CHECK_FALSE(saved.contains("encoder.embed_tokens.weight"));
  // A whole T5, with the older key of the tied embedding.
  TensorMap tensors = saved.tensors();
  for (auto& [name, tensor] : tensors) tensor = tensor.clone();
  tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone();
  tensors["decoder.block.0.layer.0.SelfAttention.q.weight"] = torch::ones({2, 2});
  tensors["lm_head.weight"] = torch::ones({2, 2});
  save_weights(folder.path(), kTransformersWeights, tensors);
  auto loaded = load_model(folder.path());
  CHECK(loaded->class_name() == "T5EncoderModel");
  CHECK(torch::equal(loaded->run("forward", {{"input_ids", ids()}})["last_hidden_state"],
                     model->forward(ids())));
}

TEST_CASE("T5 says what does not fit", "[text]") {
  const auto config = [](const Json& changes) {
    Json json = cases()[0]["config"];
    json.update(changes);
    return error_of([&] { T5EncoderModel(json, "c.json"); });
  };
  CHECK(config({{"num_heads", 0}}).find("c.json: num_heads") == 0);
  CHECK(config({{"feed_forward_proj", "tanh"}}).find("c.json: feed_forward_proj") == 0);
  CHECK(config({{"relative_attention_num_buckets", 6}}).find("c.json: relative") == 0);
  auto model = make(cases()[0]["config"]);
  const auto run = [&](const TensorMap& inputs) {
    return error_of([&] { model->run("forward", inputs); });
  };
  CHECK(run({}).find("input_ids: missing") == 0);
  CHECK(run({{"input_ids", ids() + 1}}).find("input_ids: expected ids from 0 to 19") == 0);
  CHECK(
      run({{"input_ids", ids()}, {"attention_mask", mask().slice(1, 1)}}).find("attention_mask") ==
      0);
  CHECK(run({{"input_ids", ids()}, {"labels", ids()}}).find("labels: not an input") == 0);
}
