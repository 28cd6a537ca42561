// Every spelling of a language model's weights loads, and what is written is transformers'.

#include <catch2/catch.hpp>

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/hub/safetensors.h"
#include "modules/hub/weight_folder.h"
#include "modules/registry.h"
#include "test/modules/vlm/vlm_models.h"
#include "test/support/temp_folder.h"

namespace cosmos::modules {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

std::string renamed(std::string key, const std::string& from, const std::string& to) {
  if (key.rfind(from, 0) == 0) key = to + key.substr(from.size());
  return key;
}

void check_same(const Model& a, const Model& b) {
  for (const auto& item : a.named_parameters())
    CHECK(torch::equal(item.value(), b.named_parameters()[item.key()]));
}

// Writes the model with its tensors changed, and loads the folder.
std::shared_ptr<Model> reload(const LanguageModel& model,
                              const std::function<TensorMap(TensorMap)>& change) {
  register_builtin_models();
  const TempFolder folder;
  save_model(folder.path(), model);
  save_weights(folder.path(), kTransformersWeights, change(WeightFolder(folder.path()).tensors()));
  return load_model(folder.path());
}

TensorMap rename_all(const TensorMap& tensors, const std::string& from, const std::string& to) {
  TensorMap out;
  for (const auto& [key, tensor] : tensors) out[renamed(key, from, to)] = tensor;
  return out;
}

const Json kExperts = {
    {"num_experts", 3}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 8}};

}  // namespace

TEST_CASE("Qwen2.5-VL is written under its first names and loads under both", "[vlm][hub]") {
  auto model = make_vlm("Qwen2_5_VLForConditionalGeneration", tiny_vlm());
  const TensorMap written = file_tensors(*model);
  CHECK(written.count("visual.blocks.0.attn.qkv.weight") == 1);
  CHECK(written.count("model.layers.2.self_attn.q_proj.bias") == 1);
  CHECK(written.count("lm_head.weight") == 1);
  check_same(*model, *reload(*model, [](TensorMap t) { return t; }));
  check_same(*model, *reload(*model, [](TensorMap t) {
    return rename_all(rename_all(t, "model.", "model.language_model."), "visual.", "model.visual.");
  }));
}

TEST_CASE("Qwen3-VL is written as registered and loads older names", "[vlm][hub]") {
  auto model = tiny_qwen3_vl();
  const TensorMap written = file_tensors(*model);
  CHECK(written.count("model.visual.pos_embed.weight") == 1);
  CHECK(written.count("model.language_model.norm.weight") == 1);
  check_same(*model, *reload(*model, [](TensorMap t) {
    return rename_all(rename_all(t, "model.language_model.", "model."), "model.visual.", "visual.");
  }));
  CHECK_THAT(error_of([&] {
               reload(*model, [](TensorMap t) {
                 t["visual.pos_embed.weight"] = t.at("model.visual.pos_embed.weight");
                 return t;
               });
             }),
             Contains("two spellings"));
}

TEST_CASE("a tied head is written once", "[vlm][hub]") {
  Json config = tiny_vlm({{"head_dim", 6}});
  config["tie_word_embeddings"] = true;
  auto model = make_vlm("Qwen3VLForConditionalGeneration", config);
  CHECK(file_tensors(*model).count("lm_head.weight") == 0);
  auto again = reload(*model, [](TensorMap t) { return t; });
  check_same(*model, *again);
  const auto parameters = again->named_parameters();
  CHECK(
      parameters["lm_head.weight"].is_same(parameters["model.language_model.embed_tokens.weight"]));
}

TEST_CASE("experts load fused, transposed, and one by one", "[vlm][hub]") {
  auto fused = make_vlm("Qwen3VLMoeForConditionalGeneration", tiny_vlm(kExperts));
  check_same(*fused, *reload(*fused, [](TensorMap t) {
    for (auto& [key, tensor] : t)
      if (tensor.dim() == 3) tensor = tensor.transpose(1, 2).contiguous();
    return t;
  }));

  Json text = tiny_text();
  text.update(kExperts);
  auto split = make_vlm("Qwen3MoeForCausalLM", text);
  const TempFolder folder;
  save_model(folder.path(), *split);
  const WeightFolder written(folder.path());
  CHECK(written.contains("model.layers.1.mlp.experts.2.down_proj.weight"));
  CHECK_FALSE(written.contains("model.layers.1.mlp.experts.down_proj"));
  check_same(*split, *reload(*split, [](TensorMap t) { return t; }));
  check_same(*split, *reload(*split, [&](TensorMap) { return file_tensors(*split); }));
}

}  // namespace cosmos::modules
