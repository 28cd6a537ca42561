// Processors and chat templates against transformers (test/reference/processor_golden.py).

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "modules/hub/json_file.h"
#include "modules/text/unicode.h"
#include "modules/vlm/processor.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::TempFolder;

namespace {

const Json& golden() {
  static const Json json = [] {
    std::ifstream file(COSMOS_SOURCE_DIR "/test/golden/processors.json");
    return Json::parse(file);
  }();
  return json;
}

/// The formula of the golden file.
Tensor picture(at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  const Tensor i = torch::arange(count);
  return (i * 37 + (i * i).remainder(101)).remainder(256).to(torch::kUInt8).view(shape);
}

VlmProcessor load(const std::string& family, const TempFolder& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy_file(std::string(COSMOS_SOURCE_DIR "/test/golden/text/qwen/") + name,
                               folder / name);
  write_json(folder / "processor_config.json", golden()[family]["config"]);
  return VlmProcessor::load(folder.path());
}

VideoFrames sampled(const ProcessorConfig& config) {
  VideoFrames video{.fps = 7.5, .total_frames = 21, .indices = sample_frames(21, 7.5, config)};
  video.frames = picture({21, 40, 70, 3}).index_select(0, torch::tensor(video.indices));
  return video;
}

Conversation question(const std::string& text) {
  Conversation chat;
  chat.messages.push_back(
      {.role = "user", .parts = {{.kind = MessagePart::Kind::kText, .value = text}}});
  return chat;
}

}  // namespace

TEST_CASE("processors give transformers' tensors", "[vlm][golden]") {
  if (!text::available()) return;
  for (const std::string family : {"qwen2_5_vl", "qwen3_vl"}) {
    TempFolder folder;
    const VlmProcessor processor = load(family, folder);
    TensorMap got = processor.encode_text(golden()["text"], {picture({61, 37, 3})},
                                          {sampled(processor.config)});
    for (const auto& [name, want] : golden()[family].items()) {
      if (name == "config") continue;
      INFO(family << " " << name);
      REQUIRE(got.count(name) == 1);
      const Tensor tensor = got[name];
      CHECK(tensor.sizes().vec() == want["shape"].get<std::vector<int64_t>>());
      Tensor flat = tensor.flatten().to(torch::kFloat64);
      if (tensor.is_floating_point())
        flat = flat.slice(0, 0, flat.numel(), std::max<int64_t>(1, flat.numel() / 20));
      const Tensor values =
          torch::tensor(want["values"].get<std::vector<double>>(), torch::kFloat64);
      REQUIRE(flat.numel() == values.numel());
      CHECK((flat - values).abs().max().item<double>() < 1e-6);
    }
    CHECK(got["attention_mask"].equal(torch::ones_like(got["input_ids"])));
    CHECK(got.size() == golden()[family].size());  // has a config in place of the mask
  }
}

TEST_CASE("chats are written as the published templates do", "[vlm][golden]") {
  for (const Json& item : golden()["chats"]) {
    Json chat = item["chat"];
    const bool tools = chat.contains("tools");
    if (tools) chat["tools"] = golden()["tools"];
    INFO(item["model_type"] << " " << chat);
    std::string text = render_chat(read_conversation(chat, "chat"), chat_format(item["model_type"]),
                                   {.generation_prompt = chat.value("add_generation_prompt", false),
                                    .vision_ids = chat.value("add_vision_id", false),
                                    .thinking = chat.value("enable_thinking", true)});
    if (tools) text = text.substr(text.find("</tool_call><|im_end|>"));
    CHECK(text == item["text"].get<std::string>());
  }
}

TEST_CASE("the answers of a chat are found in its tokens", "[vlm]") {
  if (!text::available()) return;
  const auto tokenizer = TextTokenizer::load(COSMOS_SOURCE_DIR "/test/golden/text/qwen");
  Conversation chat = question("assistant?");
  chat.messages.push_back({.role = "assistant", .parts = {{.value = "yes, moves"}}});
  chat.messages.push_back({.role = "user", .parts = {{.value = "<|im_end|>"}}});
  chat.messages.push_back({.role = "assistant", .parts = {{.value = "no"}}});
  const auto ids = tokenizer->encode(render_chat(chat, ChatFormat::kQwen3VL));
  const std::vector<bool> mask = answer_mask(ids, *tokenizer);
  std::vector<int64_t> answers;
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (mask[i]) answers.push_back(ids[i]);
  CHECK(tokenizer->decode(answers) == "yes, moves<|im_end|>no<|im_end|>");
}

TEST_CASE("sizes and frame numbers of the published rules", "[vlm]") {
  CHECK(smart_resize(100, 200, 28, 56 * 56, 28 * 28 * 1280) == FrameArea{112, 196});
  CHECK(smart_resize(4000, 3000, 28, 56 * 56, 28 * 28 * 1280) == FrameArea{1148, 840});
  CHECK(smart_resize(5, 10, 28, 56 * 56, 28 * 28 * 1280) == FrameArea{56, 84});
  CHECK(error_of([] { smart_resize(1, 201, 28, 1, 1000000); }).find("ratio") != std::string::npos);
  ProcessorConfig config = ProcessorConfig::defaults(VlmFamily::kQwen3VL);
  CHECK(sample_frames(10, 10, config) == std::vector<int64_t>{0, 3, 6, 9});
  CHECK(sample_frames(3, 30, config) == std::vector<int64_t>{0, 1, 2});
  config = ProcessorConfig::defaults(VlmFamily::kQwen25VL);
  CHECK(sample_frames(20, 10, config) == std::vector<int64_t>{0, 5, 10, 15});
  CHECK(error_of([&] { sample_frames(1, 10, config); }).find("at least") != std::string::npos);
}

TEST_CASE("what does not fit a processor is said", "[vlm]") {
  if (!text::available()) return;
  TempFolder folder;
  const VlmProcessor processor = load("qwen3_vl", folder);
  const auto error = [&](const std::string& text, const std::vector<Tensor>& images) {
    return error_of([&] { processor.encode_text(text, images, {}); });
  };
  CHECK(error("x", {picture({40, 40, 3})}).find("the text has 0 images") == 0);
  CHECK(error("<|image_pad|>", {}).find("the text has more <|image_pad|>") == 0);
  CHECK(error("<|image_pad|>", {picture({3, 40, 40})}).find("image: expected uint8") == 0);
  CHECK(error_of([] { chat_format("llama"); }).find("model_type") == 0);
  Conversation chat = question("x");
  chat.messages[0].parts.push_back({.kind = MessagePart::Kind::kImage, .value = "a.jpg"});
  CHECK(error_of([&] { render_chat(chat, ChatFormat::kQwen3); }).find("reads text only") !=
        std::string::npos);
  chat.messages[0].role = "robot";
  CHECK(error_of([&] { render_chat(chat, ChatFormat::kQwen3VL); }).find("messages[0].role") == 0);
  Json config = golden()["qwen3_vl"]["config"];
  config["image_processor"]["resample"] = 2;
  write_json(folder / "processor_config.json", config);
  CHECK(error_of([&] { VlmProcessor::load(folder.path()); }).find("image_processor: resample") !=
        std::string::npos);
}
