// Conversations of JSONL files: both forms, what is wrong with a line, packs.

#include <catch2/catch.hpp>

#include "test/trainer/recipes/toy_conversations.h"

namespace cosmos::trainer {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;
using modules::check_conversation;
using modules::Conversation;
using modules::MessagePart;
using modules::read_conversation;

Conversation read(const std::string& json) {
  return read_conversation(Json::parse(json), "f line 1");
}

std::string refused(const std::string& json) {
  return error_of([&] { check_conversation(read(json), "f line 1"); });
}

ConversationDataset open(const ConversationDataConfig& config) {
  return ConversationDataset(config, std::make_shared<LetterEncoder>(), "recipe.data");
}

}  // namespace

TEST_CASE("OpenAI and LLaVA lines give the same conversation", "[conversation]") {
  const Conversation openai = read(R"({"messages": [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///d/a.jpg"}},
                                 {"type": "text", "text": "what"}, {"type": "video", "video": "b.mp4"}]},
    {"role": "assistant", "content": "cat"}]})");
  const Conversation llava = read(R"({"system": "be brief", "image": "/d/a.jpg", "video": ["b.mp4"],
    "conversations": [{"from": "human", "value": "<image>\nwhat<video>"},
                      {"from": "gpt", "value": "cat"}]})");
  REQUIRE(openai.messages.size() == 3);
  REQUIRE(llava.messages.size() == 3);
  for (std::size_t m = 0; m < 3; ++m) {
    CHECK(openai.messages[m].role == llava.messages[m].role);
    REQUIRE(openai.messages[m].parts.size() == llava.messages[m].parts.size());
    for (std::size_t p = 0; p < openai.messages[m].parts.size(); ++p) {
      CHECK(openai.messages[m].parts[p].kind == llava.messages[m].parts[p].kind);
      CHECK(openai.messages[m].parts[p].value == llava.messages[m].parts[p].value);
    }
  }
}

TEST_CASE("what is wrong with a conversation is named", "[conversation]") {
  const auto turns = [](const std::string& text) { return R"({"messages": [)" + text + "]}"; };
  const std::string user = R"({"role": "user", "content": "q"})";
  const std::string assistant = R"({"role": "assistant", "content": "a"})";
  const std::string call =
      R"({"role": "assistant", "content": null, "tool_calls": [{"name": "f"}]})";
  const std::string tool = R"({"role": "tool", "content": "r"})";
  CHECK(refused(turns(user + "," + assistant)) == "no error");
  CHECK(refused(turns(user + "," + call + "," + tool + "," + assistant)) == "no error");
  CHECK_THAT(refused(turns(user + "," + user)),
             Contains("f line 1: message 2") && Contains("\"user\" after \"user\""));
  CHECK_THAT(refused(turns(assistant)), Contains("at the beginning"));
  CHECK_THAT(refused(turns(user)), Contains("an assistant's answer at the end"));
  CHECK_THAT(refused(turns(user + R"(,{"role": "assistant", "content": " \n"})")),
             Contains("answer is empty"));
  CHECK_THAT(refused(turns("")), Contains("conversation is empty"));
  CHECK_THAT(refused(R"({"text": "a"})"), Contains("messages (OpenAI)"));
  CHECK_THAT(refused(R"({"messages": [{"role": "user", "content": [{"type": "sound"}]}]})"),
             Contains("messages[0].content[0].type") && Contains("sound"));
  CHECK_THAT(refused(R"({"image": "a", "conversations": [{"from": "human", "value": "q"}]})"),
             Contains("\"image\" has 1 entries, the texts have 0 <image>"));
  CHECK_THAT(refused(R"({"conversations": [{"from": "human", "value": "<video>"}]})"),
             Contains("more <video>"));
}

TEST_CASE("lines that cannot be learned from are left out by number, or refused",
          "[conversation]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  const std::string file = dir / "bad.jsonl";
  write_lines(file, {llava_line("abc", "xyz"), "{\"messages\": [", llava_line("a", "b", "none.jpg"),
                     "", llava_line("a", ""), llava_line(std::string(90, 'a'), "b"),
                     llava_line("why", "dog", "a.jpg")});
  ConversationDataConfig config{.files = {file}, .media = "", .max_length = 64};
  const ConversationDataset data = open(config);
  CHECK(data.size() == 2);
  const auto left_out = data.left_out();
  REQUIRE(left_out.size() == 4);
  CHECK(left_out[0] == std::pair(file + " line 2", std::string("is not JSON")));
  CHECK_THAT(left_out[1].second, Contains("none.jpg: no such file"));
  CHECK(left_out[2].first == file + " line 5");
  CHECK_THAT(left_out[2].second, Contains("answer is empty"));
  CHECK_THAT(left_out[3].second, Contains("tokens, more than max_length 64"));
  CHECK(data.item_name(1) == file + " line 7");

  config.on_bad = "refuse";
  CHECK_THAT(error_of([&] { open(config); }), Contains("line 2: is not JSON"));
  write_lines(file, {"[]"});
  config.on_bad = "skip";
  CHECK_THAT(error_of([&] { open(config); }),
             Contains("recipe.data: none of the lines") && Contains("line 1"));
  CHECK_THAT(error_of([&] { open({.files = {dir / "no.jsonl"}, .media = ""}); }),
             Contains("cannot be read"));
  CHECK_THAT(error_of([] {
               ConversationDataConfig{.files = {"a"}, .media = "", .pack_length = 10}.check("data");
             }),
             Contains("data.pack_length"));
}

TEST_CASE("packs hold every line once and are nearly full", "[conversation]") {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 500; ++i) lengths.push_back(1 + (i * 7919) % 900);
  const auto bins = pack_bins(lengths, 1000);
  std::vector<int64_t> seen(lengths.size(), 0);
  int64_t total = 0;
  for (const auto& bin : bins) {
    int64_t sum = 0;
    for (const int64_t item : bin) {
      ++seen[item];
      sum += lengths[item];
    }
    CHECK(sum <= 1000);
    total += sum;
  }
  CHECK(seen == std::vector<int64_t>(lengths.size(), 1));
  CHECK(static_cast<double>(total) > 0.97 * 1000 * static_cast<double>(bins.size()));
}

}  // namespace cosmos::trainer
