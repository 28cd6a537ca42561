// Latents and text embeddings that cosmos-curate writes: training's data set reads them, and they
// are what it would have computed.

#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/pipeline/prompt_encoder.h"
#include "modules/registry.h"
#include "modules/text/unicode.h"
#include "test/support/tiny_dit.h"
#include "test/support/tiny_transfer.h"
#include "test/tools/curate_run.h"
#include "trainer/data/video_dataset.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::scene;
using cosmos::test::shell;
using cosmos::test::write_footage;
using Run = cosmos::test::CurateRun;
namespace fs = std::filesystem;

namespace {

/// DIR/vae, DIR/pipeline/{text_encoder, tokenizer}.
void write_models(const fs::path& dir) {
  modules::register_builtin_models();
  torch::manual_seed(5);
  modules::save_model(dir / "vae", *modules::make_model(test::tiny_vae_config(), "vae"));
  fs::create_directories(dir / "pipeline");
  fs::copy(COSMOS_SOURCE_DIR "/test/golden/text/t5", dir / "pipeline/tokenizer",
           fs::copy_options::recursive);
  const auto tokenizer = modules::TextTokenizer::load(dir / "pipeline/tokenizer");
  modules::save_model(dir / "pipeline/text_encoder",
                      modules::T5EncoderModel(Json{{"vocab_size", tokenizer->size()},
                                                   {"d_model", 8},
                                                   {"d_kv", 4},
                                                   {"d_ff", 16},
                                                   {"num_layers", 1},
                                                   {"num_heads", 2}}));
}

Json training(const Run& run) {
  return {{"recipe",
           {{"type", "predict"},
            {"model", test::tiny_dit_json()},
            {"tokenizer", (run.folder / "vae").string()},
            {"condition_frames", {0, 1}},
            {"data",
             {{"path", run.output.string()}, {"num_frames", 9}, {"height", 32}, {"width", 32}}}}},
          {"trainer", {{"steps", 2}, {"micro_batch_size", 2}}},
          {"run", {{"dir", (run.folder / "run").string()}}}};
}

}  // namespace

TEST_CASE("cosmos-curate writes the latents and text embeddings that training reads",
          "[curate][text]") {
  if (!modules::text::available()) return;
  const torch::NoGradGuard no_grad;
  Run run;
  write_models(run.folder.path());
  write_footage(run.inputs / "a.mp4", scene(30, {200, 60, 40}, {250, 250, 250}));
  write_footage(run.inputs / "b.mp4", scene(20, {30, 90, 200}, {10, 10, 10}));
  const Json settings = {
      {"dedup", {{"near_bits", -1}}},
      {"latents",
       {{"tokenizer", (run.folder / "vae").string()},
        {"frames", 10},
        {"height", 32},
        {"width", 32}}},
      {"text_embeds",
       {{"model", (run.folder / "pipeline").string()}, {"length", 16}, {"dtype", "float32"}}},
      {"outputs", {{"shard_clips", 4}}}};
  const Answer done = run_program("cosmos-curate", run.config(settings).string());
  INFO(done.text);
  REQUIRE(done.code == 0);

  trainer::VideoDataset data(
      {.path = run.output.string(), .num_frames = 9, .height = 32, .width = 32});
  REQUIRE(data.size() == 2);
  const auto tokenizer =
      std::dynamic_pointer_cast<modules::VideoTokenizer>(modules::load_model(run.folder / "vae"));
  const Tensor text =
      modules::PromptEncoder::load(run.folder / "pipeline")->encode({"A square."}, 16)[0];
  for (int64_t item = 0; item < 2; ++item) {
    const trainer::Sample sample = data.get(item, 1, item);
    const Tensor frames = trainer::read_video(run.output / data.item_name(item),
                                              {.frames = 9, .size = {.height = 32, .width = 32}});
    const Tensor video = trainer::channels_first(frames).to(torch::kFloat32) / 127.5 - 1;
    const Tensor latents = tokenizer->encode(video.unsqueeze(0)).mode()[0];
    CHECK(latents.sizes() == at::IntArrayRef({4, 3, 4, 4}));
    CHECK(sample.tensors.at("latents").allclose(latents, 1e-5, 1e-6));
    CHECK(sample.tensors.at("text_embeds").allclose(text, 1e-5, 1e-6));
  }

  const fs::path bin = run.output / "webdataset/resolution_lt_720/aspect_ratio_4_3/duration_0_5";
  CHECK(modules::read_json(bin / "wdinfo.json")["data_keys"] ==
        Json({"video", "metas", "latents", "text_embeds"}));
  for (const std::string kind : {"latents", "text_embeds"}) {
    const std::string tar = (bin / kind / "part_000000/000000.tar").string();
    std::string names, bytes;
    for (const Json& clip : run.lines("clips.jsonl")) {
      const std::string id = clip["span_uuid"];
      names += id + "." + kind + ".safetensors\n";
      bytes += modules::read_file(run.output / kind / (id + ".safetensors"), 1 << 20);
    }
    CHECK(shell("tar -tf " + tar).text == names);
    CHECK(shell("tar -xOf " + tar).text == bytes);
  }

  const auto set = run.set();
  REQUIRE(run_program("cosmos-curate", run.config(settings).string()).code == 0);
  CHECK(run.set() == set);

  modules::write_json(run.folder / "train.json", training(run));
  const Answer trained = run_program("cosmos-train", (run.folder / "train.json").string());
  INFO(trained.text);
  CHECK(trained.code == 0);
}
