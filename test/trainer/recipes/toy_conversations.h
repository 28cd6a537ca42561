#pragma once

// Conversations without a tokenizer: letters are tokens, and every image is the same small one.

#include <fstream>

#include "modules/registry.h"
#include "test/modules/vlm/vlm_models.h"
#include "test/support/temp_folder.h"
#include "trainer/recipes/sft.h"

namespace cosmos::test {

/// Token 9 begins a turn, 10 ends it, letters follow; an image is 7 5 5 5 5 8.
class LetterEncoder : public modules::ConversationEncoder {
 public:
  modules::EncodedConversation encode(const modules::Conversation& conversation) const override {
    std::vector<int64_t> tokens, labels;
    Tensors pixels;
    const auto add = [&](int64_t token, bool learned) {
      tokens.push_back(token);
      labels.push_back(learned ? token : modules::kIgnoreToken);
    };
    for (const auto& message : conversation.messages) {
      add(9, false);
      const bool learned = message.role == "assistant";
      for (const auto& part : message.parts) {
        if (part.kind == modules::MessagePart::Kind::kImage) {
          for (const int64_t token : {7, 5, 5, 5, 5, 8}) add(token, false);
          pixels.push_back(wave({16, 16}, static_cast<int64_t>(pixels.size())).to(torch::kFloat32));
        } else {
          for (const char c : part.value) add(11 + (c - 'a' + 26) % 26, learned);
        }
      }
      add(10, learned);
    }
    modules::EncodedConversation encoded{.sequence = {.input_ids = ids(tokens)},
                                         .labels = ids(labels)};
    if (pixels.empty()) return encoded;
    encoded.sequence.pixel_values = torch::cat(pixels);
    encoded.sequence.image_grid_thw =
        torch::tensor({{1, 4, 4}}, torch::kInt64).repeat({static_cast<int64_t>(pixels.size()), 1});
    return encoded;
  }
  int64_t length(const modules::Conversation& conversation) const override {
    return encode(conversation).sequence.length();
  }
  modules::Sequence prompt(const modules::Conversation& conversation) const override {
    modules::Sequence sequence = encode(conversation).sequence;
    sequence.input_ids = torch::cat({sequence.input_ids, ids({9})});
    return sequence;
  }
  std::vector<int64_t> tool_turn(const std::vector<std::string>& results) const override {
    std::vector<int64_t> tokens;
    for (const auto& result : results) {
      tokens.push_back(9);
      for (const char c : result) tokens.push_back(11 + (c - 'a' + 26) % 26);
      tokens.push_back(10);
    }
    tokens.push_back(9);
    return tokens;
  }
  std::string decode(const std::vector<int64_t>& tokens) const override {
    std::string text;
    for (const int64_t token : tokens)
      if (token >= 11) text += static_cast<char>('a' + (token - 11) % 26);
    return text;
  }
  std::vector<int64_t> stop_tokens() const override { return {10}; }
};

inline std::shared_ptr<const modules::ConversationEncoder> letter_encoder(
    const trainer::LanguageModelSettings&, const modules::LanguageModel&) {
  return std::make_shared<LetterEncoder>();
}

inline void write_lines(const std::filesystem::path& file, const std::vector<std::string>& lines) {
  std::ofstream out(file);
  for (const auto& line : lines) out << line << '\n';
}

/// One turn each way; with an image where `image` names a file.
inline std::string llava_line(const std::string& question, const std::string& answer,
                              const std::string& image = "") {
  Json line = {{"conversations",
                {{{"from", "human"}, {"value", (image.empty() ? "" : "<image>\n") + question}},
                 {{"from", "gpt"}, {"value", answer}}}}};
  if (!image.empty()) line["image"] = image;
  return line.dump();
}

/// A folder with train.jsonl: six conversations of different lengths, two with an image.
inline void write_toy_data(const std::filesystem::path& dir) {
  write_lines(dir / "a.jpg", {"not looked at"});
  write_lines(dir / "train.jsonl",
              {llava_line("abc", "xyz"), llava_line("what", "cat", "a.jpg"), llava_line("q", "rs"),
               llava_line("abcdefghijk", "lmnop"), llava_line("why", "dog", "a.jpg"),
               llava_line("zz", "yyyyyyyy")});
}

inline Json toy_sft(const std::filesystem::path& dir, Json more = Json::object()) {
  Json model = tiny_vlm({{"head_dim", 6}});
  model["architectures"] = {"Qwen3VLForConditionalGeneration"};
  Json config = {{"model", model}, {"data", {{"files", {(dir / "train.jsonl").string()}}}}};
  config.update(more);
  return config;
}

inline std::shared_ptr<trainer::SftRecipe> toy_recipe(const std::filesystem::path& dir,
                                                      Json more = Json::object()) {
  torch::manual_seed(5);
  modules::register_builtin_models();
  return std::make_shared<trainer::SftRecipe>(toy_sft(dir, std::move(more)), "toy.json: recipe",
                                              letter_encoder);
}

}  // namespace cosmos::test
