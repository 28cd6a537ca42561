// cosmos-curate from outside: what is kept of footage whose faults are known, hostile files, kill
// -9.

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "modules/hub/json_file.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::TempFolder;
namespace fs = std::filesystem;

namespace {

// A textured square of `colour` that wanders over a ground of the other colour, 10 frames a second.
Tensor scene(int64_t frames, std::array<int, 3> ground, std::array<int, 3> square) {
  const auto colour = [](std::array<int, 3> c) {
    return torch::tensor({c[0], c[1], c[2]}, torch::kUInt8);
  };
  Tensor clip = colour(ground).view({1, 1, 1, 3}).repeat({frames, 64, 96, 1});
  for (int64_t t = 0; t < frames; ++t)
    clip[t].slice(0, 16, 40).slice(1, t, t + 24).copy_(colour(square).view({1, 1, 3}));
  return clip;
}

void write(const fs::path& path, const Tensor& frames) {
  trainer::write_video(path, frames, {.fps = 10, .keyframe_interval = 10});
}

// Three seconds of one scene, three of another, three of black.
Tensor footage() {
  return torch::cat({scene(30, {200, 60, 40}, {250, 250, 250}),
                     scene(30, {30, 90, 200}, {10, 10, 10}),
                     torch::zeros({30, 64, 96, 3}, torch::kUInt8)});
}

struct Run {
  TempFolder folder;
  fs::path inputs = folder / "raw", output = folder / "set";

  Run() { fs::create_directories(inputs); }
  fs::path config(const Json& more = Json::object()) {
    Json settings = {
        {"inputs", {inputs.string()}}, {"output", output.string()}, {"caption", "A square."}};
    settings.update(more);
    modules::write_json(folder / "curate.json", settings);
    return folder / "curate.json";
  }
  Json summary() const { return modules::read_json(output / "summary.json"); }
  /// Every file of the training set by name, with its bytes.
  std::map<std::string, std::string> set() const {
    std::map<std::string, std::string> files;
    for (const char* part : {"videos", "metas"})
      for (const auto& file : fs::directory_iterator(output / part)) {
        std::ifstream in(file.path(), std::ios::binary);
        files[part + ("/" + file.path().filename().string())] = {std::istreambuf_iterator<char>(in),
                                                                 {}};
      }
    return files;
  }
};

}  // namespace

TEST_CASE("cosmos-curate keeps scenes, drops black, and every second is accounted for",
          "[curate]") {
  Run run;
  write(run.inputs / "a.mp4", footage());
  fs::copy_file(run.inputs / "a.mp4", run.inputs / "copy of a.mp4");
  const Answer done = run_program("cosmos-curate", run.config().string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  const Json summary = run.summary();
  CHECK(summary["input_seconds"].get<double>() == Approx(18));
  CHECK(summary["kept"]["parts"] == 2);
  CHECK(summary["kept"]["seconds"].get<double>() == Approx(6));
  CHECK(summary["dropped"]["black"]["seconds"].get<double>() == Approx(3));
  CHECK(summary["dropped"]["duplicate file"]["seconds"].get<double>() == Approx(9));
  CHECK(summary["failed"].empty());

  // Decoded, the clips are the footage's frames.
  const Tensor whole = trainer::read_video(run.inputs / "a.mp4", {.frames = 60});
  std::ifstream lines(run.output / "clips.jsonl");
  int64_t clips = 0;
  for (std::string line; std::getline(lines, line); ++clips) {
    const Json clip = Json::parse(line);
    const int64_t first = clip["first_frame"], count = clip["num_frames"];
    CHECK(count == 30);
    const Tensor frames = trainer::read_video(run.output / clip["video"].get<std::string>());
    const Tensor difference =
        (frames.to(torch::kFloat) - whole.slice(0, first, first + count).to(torch::kFloat)).abs();
    CHECK(difference.mean().item<double>() < 3);
    CHECK(fs::exists(run.output / "metas" / (clip["span_uuid"].get<std::string>() + ".txt")));
  }
  CHECK(clips == 2);
}

TEST_CASE("cosmos-curate accounts for hostile files and goes on", "[curate]") {
  Run run;
  write(run.inputs / "it's \"good\"\nreally.mp4", scene(30, {200, 60, 40}, {250, 250, 250}));
  std::ofstream(run.inputs / "empty.mp4").flush();
  std::ofstream(run.inputs / "text.mkv") << "not a video";
  {
    std::ifstream in(run.inputs / "it's \"good\"\nreally.mp4", std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    std::ofstream(run.inputs / "cut.mp4", std::ios::binary) << bytes.substr(0, bytes.size() / 3);
  }
  fs::create_directory_symlink(run.inputs, run.inputs / "loop");
  const Answer done = run_program("cosmos-curate", run.config().string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  CHECK(run.summary()["kept"]["parts"] == 1);
  CHECK(run.summary()["failed"]["unreadable file"]["parts"].get<int>() >= 3);
}

TEST_CASE("cosmos-curate killed at any moment goes on to the same set", "[curate]") {
  Run whole, killed;
  for (Run* run : {&whole, &killed})
    for (int k = 0; k < 3; ++k)
      write(run->inputs / ("v" + std::to_string(k) + ".mp4"),
            scene(30, {60 * k, 60, 200 - 40 * k}, {250, 250, 20 * k}));
  const Json settings = {{"clips", {{"mode", "encode"}}}, {"dedup", {{"near_bits", -1}}}};
  REQUIRE(run_program("cosmos-curate", whole.config(settings).string()).code == 0);
  const std::string config = killed.config(settings).string();
  for (const char* after : {"0.05", "0.1", "0.15", "0.2", "0.3"})
    run_program(
        "cosmos-curate", "--help",
        "timeout -s KILL " + std::string(after) + " " COSMOS_BIN_DIR "/cosmos-curate " + config);
  const Answer done = run_program("cosmos-curate", config);
  INFO(done.text);
  REQUIRE(done.code == 0);
  CHECK(killed.set() == whole.set());
  CHECK(killed.summary() == whole.summary());
}

TEST_CASE("cosmos-curate refuses settings it does not know in one line", "[curate]") {
  Run run;
  const Answer unknown = run_program("cosmos-curate", run.config({{"splitt", 1}}).string());
  CHECK(unknown.code == 1);
  CHECK(unknown.text.find("splitt") != std::string::npos);
  CHECK(std::count(unknown.text.begin(), unknown.text.end(), '\n') == 1);
}
