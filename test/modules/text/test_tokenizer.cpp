// Tokenizers against transformers' ids (test/reference/text_golden.py), long texts, broken files.

#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <random>
#include <sstream>

#include "modules/text/tokenizer.h"
#include "modules/text/tokenizer_file.h"
#include "modules/text/unicode.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::TempFolder;

namespace {

const std::string kGolden = COSMOS_SOURCE_DIR "/test/golden/text/";

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

/// The smallest tokenizer.json, with `changes` on top.
Json small_json(const Json& changes = Json::object()) {
  Json json = Json::parse(R"({
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<unk>": 3, "Ġ": 4}, "merges": ["a b"]},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "decoder": {"type": "ByteLevel"},
    "added_tokens": [{"id": 5, "content": "<pad>", "special": true}]})");
  json.merge_patch(changes);
  return json;
}

std::vector<int64_t> encode(const Json& json, const std::string& text) {
  return TextTokenizer(parse_tokenizer_json(json, "tokenizer.json: ")).encode(text);
}

using Ids = std::vector<int64_t>;

}  // namespace

TEST_CASE("tokenizers give transformers' ids and texts", "[text][golden]") {
  if (!text::available()) return;
  const Json cases = Json::parse(read(kGolden + "cases.json"));
  for (const auto& [name, list] : cases.items()) {
    const auto tokenizer = TextTokenizer::load(kGolden + name);
    for (const Json& item : list) {
      INFO(name << ": " << item["text"]);
      const Ids ids = item["ids"];
      CHECK(tokenizer->encode(item["text"]) == ids);
      CHECK(tokenizer->decode(ids) == item["decoded"].get<std::string>());
      TokenStream stream(tokenizer, /*skip_special=*/false);
      std::string streamed;
      for (const int64_t id : ids) streamed += stream.push(id);
      CHECK(streamed + stream.finish() == item["decoded"].get<std::string>());
    }
  }
}

TEST_CASE("a stream gives whole characters only", "[text]") {
  if (!text::available()) return;
  const auto tokenizer = TextTokenizer::load(kGolden + "qwen");
  TokenStream stream(tokenizer);
  std::string all;
  for (const int64_t id : tokenizer->encode("机 👍🏽 é<|im_end|>")) {
    const std::string part = stream.push(id);
    CHECK(part.find("\xEF\xBF\xBD") == std::string::npos);
    CHECK_NOTHROW(text::require_utf8(part, "part"));
    all += part;
  }
  CHECK(all == "机 👍🏽 é");
  const Ids thumb = tokenizer->encode("👍");
  stream.push(thumb[0]);
  CHECK(stream.finish() == "\xEF\xBF\xBD");
  // A model's vocabulary is larger than its tokenizer's.
  CHECK(tokenizer->decode({thumb[0], tokenizer->size() + 3, thumb[1]}) ==
        tokenizer->decode({thumb[0], thumb[1]}));
  CHECK_THROWS_AS(tokenizer->decode({-1}), Error);
}

TEST_CASE("batches are padded and cut, and keep their last token", "[text]") {
  if (!text::available()) return;
  const auto t5 = TextTokenizer::load(kGolden + "t5");
  const TokenBatch batch =
      t5->encode_batch({"a robot arm", "", repeated("robot ", 50)}, {.length = 8});
  CHECK(batch.input_ids.sizes() == at::IntArrayRef({3, 8}));
  CHECK(batch.attention_mask.sum(1)[1].item<int64_t>() == 1);
  CHECK(batch.input_ids[1][0].item<int64_t>() == t5->id("</s>"));
  CHECK(batch.input_ids[1][1].item<int64_t>() == t5->id("<pad>"));
  CHECK(batch.input_ids[2][7].item<int64_t>() == t5->id("</s>"));
  CHECK(batch.attention_mask[2].sum().item<int64_t>() == 8);
  const TokenBatch left = t5->encode_batch({"a", "a robot arm"}, {.pad_left = true});
  CHECK(left.attention_mask[0][0].item<int64_t>() == 0);
  CHECK(left.attention_mask[0][-1].item<int64_t>() == 1);
  CHECK(error_of([&] { t5->encode_batch({"a"}, {.length = 0}); }).find("length") == 0);
}

TEST_CASE("prompts of 100,000 characters take a moment, whatever they hold", "[text]") {
  if (!text::available()) return;
  const auto qwen = TextTokenizer::load(kGolden + "qwen"), t5 = TextTokenizer::load(kGolden + "t5");
  for (const std::string& text :
       {repeated("a", 100000), repeated(" ", 100000), repeated(" \n", 50000), repeated("<", 100000),
        repeated("红", 100000), repeated("a robot arm ", 8333),
        "a" + repeated("\u0301\u0323", 5000), repeated("<|im_start|>", 8333)}) {
    const auto begin = std::chrono::steady_clock::now();
    const Ids ids = qwen->encode(text);
    t5->encode(text);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    INFO(text.substr(0, 12));
    CHECK(spent.count() < 5);  // quadratic ways take minutes
    if (text[1] != '\xCC') CHECK(qwen->decode(ids) == text);
  }
}

TEST_CASE("options of tokenizer.json", "[text]") {
  if (!text::available()) return;
  CHECK(encode(small_json(), "ab ba<pad>") == Ids{2, 4, 1, 0, 5});
  CHECK(encode(small_json(), "abcab") == Ids{2, 2});  // no token for c, and none for unknown
  const Json unk = {{"model", {{"unk_token", "<unk>"}}}};
  CHECK(encode(small_json(unk), "accb") == Ids{0, 3, 3, 1});
  const Json fused = {{"model", {{"unk_token", "<unk>"}, {"fuse_unk", true}}}};
  CHECK(encode(small_json(fused), "accb") == Ids{0, 3, 1});
  const Json whole = {{"model", {{"vocab", {{"abab", 6}}}, {"ignore_merges", true}}}};
  CHECK(encode(small_json(whole), "abab ab") == Ids{6, 4, 2});
  const Json removed = {
      {"pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "Removed"}}}};
  CHECK(encode(small_json(removed), "a.b") == Ids{0, 1});
  const Json added = {
      {"added_tokens",
       Json::array({{{"id", 5}, {"content", "<w>"}, {"lstrip", true}, {"rstrip", true}},
                    {{"id", 6}, {"content", "a"}, {"single_word", true}}})}};
  CHECK(encode(small_json(added), "b  <w> \n ab a b") == Ids{1, 5, 2, 4, 6, 4, 1});
  const Json around = {{"post_processor",
                        {{"type", "TemplateProcessing"},
                         {"single", Json::array({{{"SpecialToken", {{"id", "<pad>"}}}},
                                                 {{"Sequence", {{"id", "A"}}}}})},
                         {"special_tokens", {{"<pad>", {{"id", "<pad>"}, {"ids", {5}}}}}}}}};
  CHECK(encode(small_json(around), "a") == Ids{5, 0});
}

TEST_CASE("what a tokenizer file asks for and is not built in is an error", "[text]") {
  if (!text::available()) return;
  const auto error = [](const Json& changes) {
    return error_of([&] { parse_tokenizer_json(small_json(changes), "t.json: "); });
  };
  CHECK(error({{"normalizer", {{"type", "Lowercase"}}}}).find("t.json: normalizer: expected") == 0);
  CHECK(error({{"decoder", {{"type", "WordPiece"}}}}).find("t.json: decoder: expected") == 0);
  CHECK(error({{"model", {{"type", "WordPiece"}}}}).find("t.json: model: expected") == 0);
  CHECK(error({{"model", {{"merges", {"a c"}}}}}).find("names a token") != std::string::npos);
  CHECK(error({{"model", {{"vocab", {{"x", 1ll << 40}}}}}}).find("expected an id") !=
        std::string::npos);
  CHECK(error({{"pre_tokenizer",
                {{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}}}})
            .find("does not compile") != std::string::npos);
  CHECK(error({{"normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "!!"}}}})
            .find("base64") != std::string::npos);
  CHECK(error_of([] { encode(small_json(), "a\xC3"); }) == "text: not UTF-8 at byte 1");
  TempFolder folder;
  CHECK(error_of([&] { TextTokenizer::load(folder.path()); }).find("expected tokenizer.json") !=
        std::string::npos);
}

TEST_CASE("damaged SentencePiece files are read or refused, never more", "[text]") {
  if (!text::available()) return;
  const std::string whole = read(kGolden + "t5/spiece.model");
  std::mt19937_64 random(7);
  TempFolder folder;
  int read_back = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bytes = whole;
    if (round % 3 == 0) bytes.resize(random() % bytes.size());
    for (int i = 0; i < 1 + round % 4 && !bytes.empty(); ++i)
      bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    std::ofstream(folder / "spiece.model", std::ios::binary) << bytes;
    const std::string error = error_of([&] {
      TextTokenizer::load(folder.path())->encode("ﬁ½ a robot ｆｕ™ <sep> arm");
      ++read_back;
    });
    CHECK(error.find('\n') == std::string::npos);
  }
  CHECK(read_back > 10);
}

TEST_CASE("broken bytes become one U+FFFD for each maximal piece", "[text]") {
  const std::string r = "\xEF\xBF\xBD";
  CHECK(text::replace_invalid("a\xF0\x9F\x91z") == "a" + r + "z");
  CHECK(text::replace_invalid("\xE0\x80\xC0\xAF\xED\xA0\x80") == repeated(r, 7));
  CHECK(text::settled_bytes("ab\xF0\x9F\x91") == 2);
  CHECK(text::settled_bytes("ab\xFF") == 3);
}
