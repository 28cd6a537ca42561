// cosmos-convert embed and cosmos-generate --prompt from outside.

#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/safetensors.h"
#include "modules/text/t5/encoder.h"
#include "modules/text/tokenizer.h"
#include "modules/text/unicode.h"
#include "test/support/errors.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::Answer;
using cosmos::test::has;
using cosmos::test::TempFolder;

namespace {

namespace fs = std::filesystem;

/// A pipeline of a tiny T5 and its tokenizer, and captions beside it.
struct Fixture {
  Fixture() {
    fs::create_directories(folder / "pipeline");
    fs::copy(COSMOS_SOURCE_DIR "/test/golden/text/t5", folder / "pipeline/tokenizer",
             fs::copy_options::recursive);
    const auto tokenizer = TextTokenizer::load(folder / "pipeline/tokenizer");
    model = std::make_shared<T5EncoderModel>(Json{{"vocab_size", tokenizer->size()},
                                                  {"d_model", 8},
                                                  {"d_kv", 4},
                                                  {"d_ff", 16},
                                                  {"num_layers", 1},
                                                  {"num_heads", 2}});
    model->eval();
    save_model(folder / "pipeline/text_encoder", *model);
    write_file(folder / "data/metas/one.txt", "a robot arm\n");
    write_file(folder / "data/metas/two.txt", std::string(100000, 'x'));
    ids = tokenizer->encode("a robot arm");
  }
  Answer embed(const std::string& input, const std::string& more = "") const {
    return cosmos::test::run_program(
        "cosmos-convert", "embed --model " + (folder / "pipeline").string() + " --input " +
                              (folder / input).string() + " --length 16 " + more);
  }

  TempFolder folder;
  std::shared_ptr<T5EncoderModel> model;
  std::vector<int64_t> ids;
};

}  // namespace

TEST_CASE("embed writes a dataset's captions where training looks for them", "[tools][text]") {
  if (!text::available()) return;
  torch::NoGradGuard no_grad;
  const Fixture f;
  const Answer answer = f.embed("data", "--dtype float32 --batch 2");
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  CHECK(has(answer.text, "cut at 16 tokens: 1 of 2 prompts"));
  const Tensor one = load_safetensors(f.folder / "data/text_embeds/one.safetensors")["text_embeds"];
  CHECK(one.sizes() == at::IntArrayRef({16, 8}));
  const auto length = static_cast<int64_t>(f.ids.size());
  const Tensor want = f.model->forward(torch::tensor(f.ids).unsqueeze(0))[0];
  CHECK((one.slice(0, 0, length) - want).abs().max().item<double>() < 1e-5);
  CHECK(one.slice(0, length).count_nonzero().item<int64_t>() == 0);
  CHECK(has(f.embed("data").text, "2 of 2 are there already"));
  // Of several cameras, each in its folder.
  fs::create_directories(f.folder / "data/metas/rear");
  write_file(f.folder / "data/metas/rear/one.txt", "a robot arm");
  CHECK(has(f.embed("data", "--dtype float32").text, "wrote 1 of 16 x 8"));
  CHECK(
      load_safetensors(f.folder / "data/text_embeds/rear/one.safetensors")["text_embeds"].allclose(
          one));
  // A run that was stopped goes on.
  fs::remove(f.folder / "data/text_embeds/one.safetensors");
  CHECK(has(f.embed("data", "--dtype bfloat16").text, "wrote 1 of 16 x 8"));
  CHECK(load_safetensors(f.folder / "data/text_embeds/one.safetensors")["text_embeds"]
            .scalar_type() == torch::kBFloat16);
}

TEST_CASE("embed names the line that it cannot use", "[tools][text]") {
  if (!text::available()) return;
  const Fixture f;
  const auto list = [&](const std::string& lines) {
    write_file(f.folder / "list.jsonl", lines);
    return f.embed("list.jsonl", "--output " + (f.folder / "out").string());
  };
  CHECK(has(list("{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").text,
            "list.jsonl:2: expected `prompt`"));
  CHECK(has(list("{\"prompt\": \"a\"\n").text, "list.jsonl:1"));
  CHECK(has(list("{\"prompt\": \"a\", \"name\": \"../x\"}\n").text, "name: expected a file name"));
  CHECK(has(
      list("{\"prompt\": \"a\", \"video\": \"x/b.mp4\"}\n{\"prompt\": \"c\", \"name\": \"b\"}\n")
          .text,
      "two prompts are named b"));
  CHECK(list("\n").code == 1);
  CHECK_FALSE(fs::exists(f.folder / "out"));
  CHECK(list("{\"prompt\": \"a\"}\n\n{\"prompt\": \"\"}\n").code == 0);
  CHECK(fs::exists(f.folder / "out/000001.safetensors"));
  CHECK(fs::exists(f.folder / "out/000003.safetensors"));
  CHECK(f.embed("list.jsonl").code == 2);  // where to?
  fs::remove_all(f.folder / "pipeline/text_encoder");
  CHECK(has(f.embed("data").text, "has no text_encoder/"));
}

TEST_CASE("generate --prompt needs the pipeline's text encoder", "[tools][text]") {
  const TempFolder folder;
  const auto generate = [&](const std::string& arguments) {
    return cosmos::test::run_program(
        "cosmos-generate", "--output " + (folder / "a.mp4").string() + " --prompt x " + arguments);
  };
  CHECK(has(generate("--pipeline " + folder.path().string()).text, "has no text_encoder/"));
  CHECK(has(generate("--transformer a --vae b").text, "needs --pipeline"));
}
