#pragma once

// A vision-language model of a few thousand parameters as a folder: weights, tokenizer, processor.

#include <filesystem>
#include <fstream>

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/vlm/language_model.h"
#include "trainer/data/media_writer.h"

namespace cosmos::test {

inline Json tiny_reason_config() {
  return {{"architectures", {"Qwen3VLForConditionalGeneration"}},
          {"model_type", "qwen3_vl"},
          {"image_token_id", 342},
          {"video_token_id", 343},
          {"vision_start_token_id", 339},
          {"vision_end_token_id", 340},
          {"text_config",
           {{"vocab_size", 350},
            {"hidden_size", 24},
            {"intermediate_size", 32},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 2},
            {"num_key_value_heads", 1},
            {"head_dim", 12},
            {"initializer_range", 0.3}}},
          {"vision_config",
           {{"depth", 1},
            {"hidden_size", 16},
            {"intermediate_size", 16},
            {"num_heads", 2},
            {"patch_size", 4},
            {"out_hidden_size", 24},
            {"num_position_embeddings", 16},
            {"deepstack_visual_indexes", {0}}}}};
}

/// The folder DIR/model with such a model, and DIR/a.png, 16 x 24 pixels.
inline std::filesystem::path write_tiny_reason(const std::filesystem::path& dir) {
  const auto folder = dir / "model";
  torch::manual_seed(3);
  modules::save_model(folder,
                      modules::LanguageModel(modules::LanguageModelConfig::from_json(
                          "Qwen3VLForConditionalGeneration", tiny_reason_config(), "config.json")));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy_file(
        std::filesystem::path(COSMOS_SOURCE_DIR "/test/golden/text/qwen") / name, folder / name);
  const Json pixels = {{"patch_size", 4},
                       {"merge_size", 2},
                       {"temporal_patch_size", 2},
                       {"size", {{"shortest_edge", 64}, {"longest_edge", 512}}}};
  modules::write_json(folder / "preprocessor_config.json", pixels);
  Json video = pixels;
  video.update(
      {{"fps", 2}, {"min_frames", 2}, {"size", {{"shortest_edge", 64}, {"longest_edge", 4096}}}});
  modules::write_json(folder / "video_preprocessor_config.json", video);
  const Tensor ramp = torch::arange(16 * 24 * 3).remainder(251).to(torch::kUInt8);
  trainer::write_png(dir / "a.png", ramp.view({16, 24, 3}));
  return folder;
}

inline void write_text(const std::filesystem::path& file, const std::vector<Json>& lines) {
  std::ofstream out(file);
  for (const Json& line : lines) out << line.dump() << '\n';
}

inline std::vector<Json> read_text(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<Json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

/// A question about a.png with an answer, or without.
inline Json asked(const std::string& question, const std::string& answer = "") {
  Json turns = Json::array();
  turns.push_back({{"from", "human"}, {"value", "<image>\n" + question}});
  if (!answer.empty()) turns.push_back({{"from", "gpt"}, {"value", answer}});
  return {{"image", "a.png"}, {"conversations", turns}};
}

}  // namespace cosmos::test
