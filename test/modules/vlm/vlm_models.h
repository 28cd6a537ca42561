#pragma once

// Small vision-language models for tests, and what they are asked.

#include <functional>

#include "modules/vlm/sequence.h"
#include "test/support/golden.h"

namespace cosmos::test {

using modules::LanguageModel;
using modules::LanguageModelConfig;
using modules::Sequence;

inline Json tiny_text() {
  return {{"vocab_size", 40},
          {"hidden_size", 24},
          {"intermediate_size", 20},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"rope_parameters", {{"rope_theta", 1e3}, {"mrope_section", {1, 1, 1}}}}};
}

inline Json tiny_vision() {
  return {{"depth", 2},
          {"hidden_size", 16},
          {"intermediate_size", 12},
          {"num_heads", 2},
          {"patch_size", 2},
          {"out_hidden_size", 24},
          {"in_channels", 2},
          {"window_size", 4},
          {"fullatt_block_indexes", {1}},
          {"num_position_embeddings", 9},
          {"deepstack_visual_indexes", {0, 1}}};
}

/// Tokens 5 and 6 stand for images and videos, 7 and 8 around them.
inline Json tiny_vlm(const Json& text = {}, const Json& vision = {}) {
  Json json = {{"text_config", tiny_text()}, {"vision_config", tiny_vision()},
               {"image_token_id", 5},        {"video_token_id", 6},
               {"vision_start_token_id", 7}, {"vision_end_token_id", 8}};
  if (text.is_object()) json["text_config"].update(text);
  if (vision.is_object()) json["vision_config"].update(vision);
  return json;
}

inline std::shared_ptr<LanguageModel> make_vlm(const std::string& class_name, const Json& config) {
  auto model = std::make_shared<LanguageModel>(
      LanguageModelConfig::from_json(class_name, config, "config.json"));
  fill(*model);
  model->eval();
  return model;
}

inline std::shared_ptr<LanguageModel> tiny_qwen3_vl(const Json& text = {}) {
  Json more = {{"head_dim", 6}};
  if (text.is_object()) more.update(text);
  return make_vlm("Qwen3VLForConditionalGeneration", tiny_vlm(more));
}

inline Tensor ids(std::vector<int64_t> values) {
  return torch::tensor(values, torch::kInt64);
}

inline Sequence text_sequence(int64_t length, int64_t k = 0) {
  std::vector<int64_t> values;
  for (int64_t i = 0; i < length; ++i) values.push_back(9 + (7 * i + 5 * k + i * i) % 31);
  return {.input_ids = ids(values)};
}

/// An image of 4 x 4 patches (4 tokens) in text.
inline Sequence image_sequence(int64_t k = 0) {
  return {.input_ids = ids({11, 7, 5, 5, 5, 5, 8, 14 + k, 20}),
          .pixel_values = wave({16, 16}, k).to(torch::kFloat32),
          .image_grid_thw = torch::tensor({{1, 4, 4}}, torch::kInt64)};
}

inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace cosmos::test
