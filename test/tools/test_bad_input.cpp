// What users get wrong, through the programs themselves: every case ends in one line that says what
// to do, an exit code that is not 0, and no file under a final name.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <iostream>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/hub/safetensors.h"
#include "modules/registry.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using namespace cosmos::modules;
using Catch::Matchers::Contains;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::TempFolder;
namespace fs = std::filesystem;

namespace {

bool no_media() {
  if (!trainer::media_available()) std::cout << "SKIPPED: FFmpeg is not there\n";
  return !trainer::media_available();
}

Json tokenizer_json(int64_t channels) {
  return {{"_class_name", "AutoencoderKLCosmos"},
          {"latent_channels", 4},
          {"encoder_block_out_channels", {channels, channels, channels}},
          {"decode_block_out_channels", {channels, channels, channels}},
          {"num_layers", 0},
          {"attention_resolutions", Json::array()},
          {"patch_size", 4},
          {"spatial_compression_ratio", 8},
          {"temporal_compression_ratio", 4}};
}

Json transformer_json() {
  return {{"_class_name", "CosmosTransformer3DModel"},
          {"in_channels", 5},
          {"out_channels", 4},
          {"num_attention_heads", 2},
          {"attention_head_dim", 12},
          {"num_layers", 1},
          {"mlp_ratio", 2.0},
          {"text_embed_dim", 8},
          {"adaln_lora_dim", 4},
          {"max_size", {4, 8, 8}},
          {"extra_pos_embed_type", nullptr}};
}

/// A working set-up of everything; each case breaks one thing.
struct Bench {
  Bench() {
    register_builtin_models();
    clip("videos/good.mp4", 12);
    config = {{"recipe",
               {{"type", "tokenizer"},
                {"model", tokenizer_json(8)},
                {"data",
                 {{"path", (dir / "videos").string()},
                  {"num_frames", 5},
                  {"height", 16},
                  {"width", 16}}}}},
              {"trainer", {{"steps", 2}, {"threads", 1}}},
              {"run", {{"dir", (dir / "run").string()}}}};
  }
  void clip(const std::string& name, int64_t frames) {
    const Tensor ramp = torch::arange(frames * 32 * 32 * 3).remainder(255).to(torch::kUInt8);
    trainer::write_video(dir / name, ramp.view({frames, 32, 32, 3}), {.fps = 10, .quality = 4});
  }
  std::string path(const std::string& name) const { return (dir / name).string(); }
  Answer train(const std::string& options = "", const std::string& before = "") {
    write_json(dir / "config.json", config);
    return run_program("cosmos-train", path("config.json") + " " + options, before);
  }
  Json& data() { return config["recipe"]["data"]; }

  TempFolder dir;
  Json config;
};

/// One line that names the program and holds `part`.
void check_refused(const Answer& answer, const std::string& part) {
  INFO(answer.text);
  CHECK(answer.code == 1);
  CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 1);
  CHECK_THAT(answer.text, Contains("cosmos-") && Contains(part));
}

/// No checkpoint under a final name, and no weights anywhere.
void check_nothing_final(const fs::path& run) {
  if (!fs::exists(run)) return;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    INFO(entry.path());
    CHECK(entry.path().extension() != ".safetensors");
    CHECK(!(entry.path().parent_path().filename() == "checkpoints" &&
            entry.path().filename().string().starts_with("step-")));
  }
}

}  // namespace

TEST_CASE("cosmos-train refuses what it cannot train on", "[bad-input]") {
  if (no_media()) return;
  Bench bench;
  REQUIRE(bench.train("run.dir=" + bench.path("fine")).code == 0);
  std::string expected;
  SECTION("a setting of the wrong type") {
    bench.config["trainer"]["steps"] = "ten";
    expected = "trainer.steps";
  }
  SECTION("a misspelt setting of the data") {
    bench.data()["num_frame"] = 5;
    expected = "did you mean num_frames?";
  }
  SECTION("a misspelt setting of the model") {
    bench.config["recipe"]["model"]["latent_chanels"] = 4;
    expected = "latent_chanels";
  }
  SECTION("a folder that is not there") {
    bench.data()["path"] = bench.path("clips");
    expected = bench.path("clips");
  }
  SECTION("a folder without videos") {
    fs::create_directories(bench.dir / "empty");
    bench.data()["path"] = bench.path("empty");
    expected = bench.path("empty");
  }
  SECTION("a corrupt video") {
    write_file(bench.dir / "broken" / "clip.mp4", std::string(4096, 'x'));
    bench.data()["path"] = bench.path("broken");
    expected = "clip.mp4";
  }
  SECTION("a clip shorter than the window") {
    bench.data()["num_frames"] = 13;
    expected = "good.mp4";
  }
  SECTION("a window that the tokenizer cannot cut") {
    bench.data()["num_frames"] = 6;
    expected = "num_frames";
  }
  SECTION("a picture that the tokenizer cannot cut") {
    bench.data()["width"] = 20;
    expected = "width";
  }
  check_refused(bench.train(), expected);
  check_nothing_final(bench.dir / "run");
}

TEST_CASE("cosmos-train refuses a checkpoint of another shape", "[bad-input]") {
  if (no_media()) return;
  Bench bench;
  REQUIRE(bench.train().code == 0);
  bench.config["recipe"]["model"] = tokenizer_json(12);
  bench.config["trainer"]["steps"] = 3;
  check_refused(bench.train(), "step-00000002");

  // A folder whose weights are not those of its config.json.
  auto model = make_model(tokenizer_json(8), "test");
  save_model(bench.path("start"), *model);
  Json other = read_json(bench.dir / "start" / "config.json");
  other["latent_channels"] = 6;
  write_json(bench.dir / "start" / "config.json", other);
  bench.config["recipe"]["model"] = {{"path", bench.path("start")}};
  bench.config["run"]["dir"] = bench.path("tuned");
  const Answer answer = bench.train();
  INFO(answer.text);
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("quant_conv"));
  check_nothing_final(bench.dir / "tuned");
}

TEST_CASE("a disk that is full leaves no half-written checkpoint", "[bad-input]") {
  if (no_media()) return;
  Bench bench;
  // Files end at 64 KiB: writing more fails as on a full disk.
  const Answer answer = bench.train("", "trap '' XFSZ; ulimit -f 64");
  INFO(answer.text);
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("could not be written") && Contains("free some space"));
  check_nothing_final(bench.dir / "run");
  // With space again the same command trains.
  CHECK(bench.train().code == 0);
}

TEST_CASE("cosmos-generate refuses what it cannot start from", "[bad-input]") {
  if (no_media()) return;
  Bench bench;
  save_model(bench.path("transformer"), *make_model(transformer_json(), "test"));
  save_model(bench.path("vae"), *make_model(tokenizer_json(8), "test"));
  bench.clip("short.mp4", 2);
  write_file(bench.dir / "picture.png", "not a picture");
  const std::string pipeline =
      " --transformer " + bench.path("transformer") + " --vae " + bench.path("vae");
  const std::string size = "--height 16 --width 16 --steps 1 --output ";
  const auto generate = [&](const std::string& options) {
    return run_program("cosmos-generate", size + bench.path("out.mp4") + options);
  };
  check_refused(generate(" --num-frames 5 --pipeline " + bench.path("none")), bench.path("none"));
  check_refused(generate(" --num-frames 5 --vae " + bench.path("vae")), "--transformer");
  check_refused(generate(pipeline + " --num-frames 5 --image " + bench.path("picture.png")),
                "picture.png");
  check_refused(generate(pipeline + " --num-frames 5 --image " + bench.path("none.png")),
                "none.png");
  check_refused(generate(pipeline + " --num-frames 5 --video " + bench.path("short.mp4")),
                "short.mp4");
  check_refused(generate(pipeline + " --num-frames 5 --adapter " + bench.path("vae")),
                "no adapter here");
  check_refused(generate(pipeline + " --num-frames 5 --prompt 'a robot'"), "--inputs");
  const Answer frames = generate(pipeline + " --num-frames 6");  // after a note about the text
  CHECK(frames.code == 1);
  CHECK_THAT(frames.text, Contains("num-frames: expected 1 + a multiple of 4, got 6"));
  CHECK(!fs::exists(bench.path("out.mp4")));
  CHECK(!fs::exists(bench.path("out.json")));
}

TEST_CASE("cosmos-forward runs a folder, and refuses inputs that do not fit", "[bad-input]") {
  TempFolder dir;
  register_builtin_models();
  save_model(dir / "vae", *make_model(tokenizer_json(8), "test"));
  const std::string inputs = (dir / "in.safetensors").string(),
                    outputs = (dir / "out.safetensors").string();
  const auto forward = [&](const TensorMap& tensors, const std::string& options) {
    save_safetensors(inputs, tensors);
    fs::remove(outputs);
    return run_program("cosmos-forward", "--model " + (dir / "vae").string() + " --inputs " +
                                             inputs + " --outputs " + outputs + " " + options);
  };
  const Tensor video = torch::zeros({1, 3, 5, 16, 16});
  REQUIRE(forward({{"sample", video}}, "--method encode").code == 0);
  CHECK(load_safetensors(outputs).at("latent").sizes() == at::IntArrayRef({1, 4, 2, 2, 2}));
  CHECK(forward({{"sample", video}}, "--method invert").code == 2);
  check_refused(forward({{"video", video}}, "--method encode"), "sample");
  check_refused(forward({{"sample", video.slice(4, 0, 15)}}, "--method encode"), "15");
  check_refused(forward({{"sample", video.slice(1, 0, 2)}}, "--method encode"), "channels");
  CHECK(!fs::exists(outputs));
}
