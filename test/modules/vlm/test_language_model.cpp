// Language models with and without a vision tower: transformers' recorded answers, packing, errors.

#include <catch2/catch.hpp>

#include "modules/hub/safetensors.h"
#include "modules/vlm/reason_embeddings.h"
#include "test/modules/vlm/vlm_models.h"

namespace cosmos::modules {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

Tensor from_json(const Json& json) {
  if (json.is_number_integer()) return torch::tensor(json.get<int64_t>());
  if (json.is_number()) return torch::tensor(json.get<double>());
  Tensors parts;
  for (const auto& item : json) parts.push_back(from_json(item));
  return torch::stack(parts);
}

TensorMap golden_inputs(const Json& golden_case) {
  TensorMap inputs;
  for (const auto& [name, value] : golden_case["inputs"].items()) inputs[name] = from_json(value);
  int64_t k = 0;
  for (const auto& [name, shape] : golden_case["pixels"].items())
    inputs[name] = wave(shape.get<std::vector<int64_t>>(), k++).to(torch::kFloat32);
  return inputs;
}

Tensor hidden_alone(LanguageModel& model, const Sequence& sequence) {
  return model.forward(pack_sequences(model, {sequence}))[0];
}

}  // namespace

TEST_CASE("vision-language models give transformers' logits and gradients", "[vlm][golden]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/vlm.safetensors");
  int cases = 0;
  for (const auto& [name, text] : golden.metadata()) {
    if (name == "format") continue;
    INFO(name);
    const Json golden_case = Json::parse(text);
    auto model = make_vlm(golden_case["class"], golden_case["config"]);
    const Tensor logits = model->run("forward", golden_inputs(golden_case)).at("logits");
    CHECK(relative(logits, golden.get(name + ".logits")) < 1e-5);
    Tensor loss = logits.square().mean();
    loss.backward();
    CHECK(relative(loss, golden.get(name + ".loss")) < 1e-5);
    const Tensor got = gradient_probes(*model), want = golden.get(name + ".grads");
    REQUIRE(got.sizes() == want.sizes());
    const Tensor norms = want.select(1, 0);
    const Tensor scale = norms.clamp_min(1e-4 * norms.norm().item<double>()).unsqueeze(1);
    CHECK(((got - want).abs() / scale).max().item<double>() < 1e-4);
    ++cases;
  }
  CHECK(cases == 3);
}

TEST_CASE("packed sequences are computed as if each stood alone", "[vlm]") {
  for (const bool sparse : {false, true}) {
    auto model = sparse ? make_vlm("Qwen3VLMoeForConditionalGeneration",
                                   tiny_vlm({{"num_experts", 4},
                                             {"num_experts_per_tok", 2},
                                             {"moe_intermediate_size", 8}}))
                        : tiny_qwen3_vl();
    const std::vector<Sequence> sequences = {text_sequence(5), image_sequence(1),
                                             text_sequence(1, 3), image_sequence(2)};
    const LanguageModelInputs packed = pack_sequences(*model, sequences);
    CHECK(packed.offsets == std::vector<int64_t>{0, 5, 14, 15, 24});
    const Tensor together = model->forward(packed)[0];
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const Tensor own = together.narrow(0, packed.offsets[s], sequences[s].length());
      CHECK(relative(own, hidden_alone(*model, sequences[s])) < 1e-5);
    }
  }
}

TEST_CASE("padding changes nothing for the tokens that are there", "[vlm]") {
  auto model = tiny_qwen3_vl();
  const Tensor alone = hidden_alone(*model, text_sequence(4));
  Tensor input_ids = torch::zeros({2, 7}, torch::kInt64), mask = torch::zeros({2, 7});
  input_ids[0].narrow(0, 3, 4).copy_(text_sequence(4).input_ids);
  mask[0].narrow(0, 3, 4).fill_(1);
  input_ids[1].copy_(text_sequence(7, 2).input_ids);
  mask[1].fill_(1);
  const Tensor padded = model->forward({.input_ids = input_ids, .attention_mask = mask});
  // Rotary attention knows distances only, so left padding's shift of positions does not show.
  CHECK(relative(padded[0].narrow(0, 3, 4), alone) < 1e-5);
}

TEST_CASE("a tower that always sees adds nothing and has gradients", "[vlm]") {
  auto model = tiny_qwen3_vl();
  const LanguageModelInputs text = pack_sequences(*model, {text_sequence(5)});
  const Tensor blind = model->forward(text);
  model->set_always_sees(true);
  const Tensor seen = model->forward(text);
  CHECK(torch::equal(seen, blind));
  seen.square().sum().backward();
  for (const auto& item : model->named_parameters()) {
    if (item.key().rfind("model.visual.", 0) != 0) continue;
    INFO(item.key());
    REQUIRE(item.value().grad().defined());
    CHECK(item.value().grad().abs().max().item<double>() == 0);
  }
}

TEST_CASE("Reason1's embeddings are normalised states of every layer", "[vlm]") {
  auto model = make_vlm("Qwen2_5_VLForConditionalGeneration", tiny_vlm());
  const Tensor embeddings = reason_embeddings(*model, text_sequence(6).input_ids.unsqueeze(0));
  REQUIRE(embeddings.sizes() == at::IntArrayRef({1, 6, 3 * 24}));
  CHECK_FALSE(embeddings.requires_grad());
  const Tensor layers = embeddings.view({6, 3, 24});
  CHECK(layers.mean(-1).abs().max().item<double>() < 1e-5);
  CHECK((layers.std(-1) - 1).abs().max().item<double>() < 1e-4);
  const Tensor last = hidden_alone(*model, text_sequence(6));
  const Tensor want = (last - last.mean(-1, true)) / (last.std(-1, true, true) + 1e-8);
  CHECK(relative(layers.select(1, 2), want) < 1e-5);
}

TEST_CASE("language models refuse inputs that do not fit, by name", "[vlm]") {
  torch::NoGradGuard no_grad;
  auto model = tiny_qwen3_vl();
  const Sequence image = image_sequence();
  const auto refused = [&](const std::function<void(TensorMap&)>& change) {
    TensorMap inputs = {{"input_ids", image.input_ids.unsqueeze(0).clone()},
                        {"pixel_values", image.pixel_values},
                        {"image_grid_thw", image.image_grid_thw.clone()}};
    change(inputs);
    return error_of([&] { model->run("forward", inputs); });
  };
  CHECK(refused([](TensorMap&) {}) == "no error");
  CHECK_THAT(refused([](TensorMap& in) { in.erase("input_ids"); }), Contains("input_ids: missing"));
  CHECK_THAT(refused([](TensorMap& in) { in["pixel_value"] = in["pixel_values"]; }),
             Contains("did you mean pixel_values"));
  CHECK_THAT(refused([](TensorMap& in) { in.erase("image_grid_thw"); }),
             Contains("image_grid_thw: missing beside pixel_values"));
  CHECK_THAT(refused([](TensorMap& in) { in["input_ids"][0][0] = 40; }),
             Contains("[0, 40), got 40"));
  CHECK_THAT(refused([](TensorMap& in) { in["input_ids"][0][3] = 9; }), Contains("image_grid_thw"));
  CHECK_THAT(refused([](TensorMap& in) { in["image_grid_thw"][0][1] = 3; }),
             Contains("multiples of 2"));
  CHECK_THAT(refused([](TensorMap& in) {
               in["pixel_values"] = torch::zeros({16, 15});
             }),
             Contains("16 patches"));
  CHECK_THAT(refused([](TensorMap& in) {
               in["attention_mask"] = torch::ones({1, 3});
             }),
             Contains("attention_mask") && Contains("[1, 9]"));
  CHECK_THAT(error_of([&] { model->run("encode", {}); }), Contains("has no method encode"));
  auto text = make_vlm("Qwen3ForCausalLM", tiny_text());
  CHECK_THAT(error_of([&] {
               text->run("forward", {{"input_ids", ids({1}).unsqueeze(0)},
                                     {"pixel_values", torch::zeros({4, 16})},
                                     {"image_grid_thw", image.image_grid_thw}});
             }),
             Contains("no vision tower"));
}

TEST_CASE("a language model's config keeps the file and names what is wrong", "[vlm][config]") {
  const std::string name = "Qwen3VLForConditionalGeneration";
  Json json = tiny_vlm();
  json["someone_elses_key"] = 1;
  const Json back = LanguageModelConfig::from_json(name, json, "config.json").to_json();
  CHECK(back["someone_elses_key"] == 1);
  CHECK(back["architectures"] == Json({name}));
  CHECK(back["model_type"] == "qwen3_vl");
  const auto refused = [&](const Json& text, const Json& vision) {
    return error_of(
        [&] { LanguageModelConfig::from_json(name, tiny_vlm(text, vision), "config.json"); });
  };
  CHECK_THAT(refused({{"num_key_value_heads", 3}}, {}),
             Contains("config.json: text_config: num_attention_heads"));
  CHECK_THAT(refused({{"hidden_size", "wide"}}, {}), Contains("whole number"));
  CHECK_THAT(refused({{"use_sliding_window", true}}, {}), Contains("use_sliding_window"));
  CHECK_THAT(refused({{"rope_parameters", {{"rope_type", "yarn"}}}}, {}), Contains("got yarn"));
  CHECK_THAT(refused({}, {{"out_hidden_size", 20}}), Contains("reads 24"));
  CHECK_THAT(refused({}, {{"num_heads", 3}}), Contains("vision_config: hidden_size"));
  CHECK_THAT(refused({}, {{"deepstack_visual_indexes", {2}}}), Contains("below depth 2"));
}

}  // namespace cosmos::modules
