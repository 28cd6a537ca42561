// cosmos-curate from outside: what is kept of footage whose faults are known, hostile files, kill
// -9.

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/safetensors.h"
#include "modules/transnet/shots.h"
#include "modules/transnet/transnet.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "test/tools/curate_run.h"
#include "test/tools/tiny_reason.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::scene;
using cosmos::test::shell;
using cosmos::test::write_footage;
using Run = cosmos::test::CurateRun;
namespace fs = std::filesystem;

namespace {

// Three seconds of one scene, three of another, three of black.
Tensor footage() {
  return torch::cat({scene(30, {200, 60, 40}, {250, 250, 250}),
                     scene(30, {30, 90, 200}, {10, 10, 10}),
                     torch::zeros({30, 64, 96, 3}, torch::kUInt8)});
}

}  // namespace

TEST_CASE("cosmos-curate keeps scenes, drops black, and every second is accounted for",
          "[curate]") {
  Run run;
  write_footage(run.inputs / "a.mp4", footage());
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
  const std::vector<Json> clips = run.lines("clips.jsonl");
  CHECK(clips.size() == 2);
  for (const Json& clip : clips) {
    const int64_t first = clip["first_frame"], count = clip["num_frames"];
    CHECK(count == 30);
    const Tensor frames = trainer::read_video(run.output / clip["video"].get<std::string>());
    const Tensor difference =
        (frames.to(torch::kFloat) - whole.slice(0, first, first + count).to(torch::kFloat)).abs();
    CHECK(difference.mean().item<double>() < 3);
    CHECK(fs::exists(run.output / "metas" / (clip["span_uuid"].get<std::string>() + ".txt")));
  }

  const std::string page = modules::read_file(run.output / "report.html", 1 << 24);
  for (const char* part : {"duplicate file", "black", "33.3 %", "Sharpness", "class='limit'",
                           "data:image/png;base64,", "2 of 2", "1 of 1"}) {
    INFO(part);
    CHECK(page.find(part) != std::string::npos);
  }
  CHECK(page.find("http") == std::string::npos);
}

TEST_CASE("cosmos-curate accounts for hostile files and goes on", "[curate]") {
  Run run;
  write_footage(run.inputs / "it's \"good\"\nreally.mp4",
                scene(30, {200, 60, 40}, {250, 250, 250}));
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

// COSMOS_CURATE_KILLS: how many; test/long/curate_kills.sh makes 50.
TEST_CASE("cosmos-curate killed at any moment goes on to the same set", "[curate][curate-kills]") {
  const char* wanted = std::getenv("COSMOS_CURATE_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 4;
  Run whole, killed;
  for (int k = 0; k < 3; ++k)
    write_footage(whole.inputs / ("v" + std::to_string(k) + ".mp4"),
                  scene(30, {60 * k, 60, 200 - 40 * k}, {250, 250, 20 * k}));
  killed.inputs = whole.inputs;
  const Json settings = {{"clips", {{"mode", "encode"}}},
                         {"dedup", {{"near_bits", -1}}},
                         {"outputs", {{"shard_clips", 2}, {"cosmos_curate", true}}}};
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(run_program("cosmos-curate", whole.config(settings).string()).code == 0);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto expected = whole.set();
  CHECK(expected.size() > 15);

  const std::string config = killed.config(settings).string();
  std::mt19937 random(20261125);
  int done = 0, finished = 0;
  while (done < kills) {
    const std::string after =
        std::to_string(std::uniform_real_distribution(0.0, 1.1 * seconds)(random));
    const Answer answer =
        shell("timeout -s KILL " + after + " " COSMOS_BIN_DIR "/cosmos-curate " + config);
    INFO("killed after " << after << " s: " << answer.text);
    if (answer.code == 0) {  // it was faster: this set is complete, the next begins
      CHECK(killed.set() == expected);
      fs::remove_all(killed.output);
      ++finished;
    } else {
      REQUIRE(answer.code == 137);
      ++done;
    }
  }
  const Answer last = run_program("cosmos-curate", config);
  INFO(last.text);
  REQUIRE(last.code == 0);
  CHECK(killed.set() == expected);
  if (wanted) std::printf("%d kills, %d runs that ended before theirs\n", done, finished);
}

TEST_CASE("cosmos-curate's shards hold every clip once, whatever was there before", "[curate]") {
  Run run;
  for (int k = 0; k < 3; ++k)
    write_footage(run.inputs / ("v" + std::to_string(k) + ".mp4"),
                  scene(30, {60 * k, 60, 200 - 40 * k}, {250, 250, 20 * k}));
  const auto settings = [](int64_t clips) {
    return Json{{"dedup", {{"near_bits", -1}}}, {"outputs", {{"shard_clips", clips}}}};
  };
  REQUIRE(run_program("cosmos-curate", run.config(settings(1)).string()).code == 0);
  const fs::path bin = run.output / "webdataset/resolution_lt_720/aspect_ratio_4_3/duration_0_5";
  CHECK(fs::exists(bin / "metas/part_000000/000002.tar"));
  REQUIRE(run_program("cosmos-curate", run.config(settings(2)).string()).code == 0);
  CHECK(!fs::exists(bin / "metas/part_000000/000002.tar"));
  const Json info = modules::read_json(bin / "wdinfo.json");
  CHECK(info["total_key_count"] == 3);
  CHECK(info["data_list"] == Json{"part_000000/000000.tar", "part_000000/000001.tar"});
  std::string members;
  for (const char* shard : {"video/part_000000/000000.tar", "video/part_000000/000001.tar"})
    members += shell("tar -xOf " + (bin / shard).string()).text;
  std::string clips;
  for (const Json& clip : run.lines("clips.jsonl"))
    clips += modules::read_file(run.output / clip["video"].get<std::string>(), 1 << 24);
  CHECK(members == clips);
}

TEST_CASE("cosmos-curate cuts where TransNetV2 sees another shot", "[curate]") {
  Run run;
  const fs::path video = run.inputs / "a.mp4";
  write_footage(video, footage());
  torch::manual_seed(5);
  torch::NoGradGuard no_grad;
  modules::TransNetV2 network(Json{{"F", 1}, {"S", 1}, {"D", 8}});
  network.eval();
  const fs::path weights = run.folder / "tiny.pth";
  modules::save_pytorch_file(weights, modules::lazy_tensors(modules::file_tensors(network)));

  modules::ShotScorer scorer([&](const Tensor& window) {
    return torch::sigmoid(network.forward(window.unsqueeze(0)).one_hot.flatten());
  });
  const Tensor frames = trainer::read_video(video, {.size = {.height = 27,
                                                             .width = 48,
                                                             .fit = trainer::Fit::kStretch,
                                                             .filter = trainer::Filter::kBicubic}});
  for (int64_t n = 0; n < frames.size(0); ++n) scorer.add(frames[n]);
  scorer.finish();
  const double median = torch::tensor(scorer.scores()).median().item<double>();
  const auto shots = modules::shots_of(scorer.scores(), median);
  REQUIRE(shots.size() >= 2);

  const Answer done =
      run_program("cosmos-curate", run.config({{"split",
                                                {{"method", "transnetv2"},
                                                 {"weights", weights.string()},
                                                 {"threshold", median},
                                                 {"min_s", 0}}},
                                               {"filter", {{"max_black", 1}, {"max_frozen", 1}}},
                                               {"dedup", {{"near_bits", -1}}},
                                               {"frame_scores", true}})
                                       .string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  std::vector<modules::FrameRange> found;
  std::string sha256;
  for (const Json& clip : run.lines("clips.jsonl")) {
    const int64_t first = clip["first_frame"], count = clip["num_frames"];
    found.emplace_back(first, first + count);
    sha256 = clip["source_sha256"];
  }
  CHECK(found == shots);
  for (const Json& part : run.lines("dropped.jsonl")) CHECK(part["reason"] == "transition");
  const TensorMap scores =
      modules::load_safetensors(run.output / "frame_scores" / (sha256 + ".safetensors"));
  CHECK(scores.at("shot").allclose(torch::tensor(scorer.scores()), 0, 1e-6));
  CHECK(scores.at("content").argmax().item<int64_t>() % 30 == 0);
}

TEST_CASE("cosmos-curate drops what shows the same as another clip", "[curate]") {
  Run run;
  const fs::path model = test::write_tiny_reason(run.folder.path());
  const Tensor red = scene(20, {200, 60, 40}, {250, 250, 250});
  write_footage(run.inputs / "a.mp4", red);
  trainer::write_video(run.inputs / "b.mp4", red, {.fps = 10, .keyframe_interval = 5});
  write_footage(run.inputs / "c.mp4", scene(20, {30, 90, 200}, {10, 10, 10}));
  const Json settings = {
      {"split", {{"min_s", 0}}},
      {"dedup", {{"near_bits", -1}, {"model", model.string()}, {"eps", 1e-4}, {"side", 32}}}};
  for (int again = 0; again < 2; ++again) {
    const Answer done = run_program("cosmos-curate", run.config(settings).string());
    INFO(done.text);
    REQUIRE(done.code == 0);
    CHECK(run.lines("clips.jsonl").size() == 2);
    const std::vector<Json> dropped = run.lines("dropped.jsonl");
    REQUIRE(dropped.size() == 1);
    CHECK(dropped[0]["reason"] == "semantic duplicate");
    CHECK(dropped[0]["source_video"].get<std::string>().find("c.mp4") == std::string::npos);
  }
  const TensorMap rows = modules::load_safetensors(run.output / "semantic/embeddings.safetensors");
  CHECK(rows.at("embeddings").sizes() == at::IntArrayRef{3, 24});
  CHECK(rows.at("embeddings").norm(2, 1).allclose(torch::ones({3})));
}

TEST_CASE("cosmos-curate's captions are what cosmos-reason says of the clips", "[curate]") {
  Run run;
  const std::string model = test::write_tiny_reason(run.folder.path()).string();
  write_footage(run.inputs / "a.mp4", scene(20, {200, 60, 40}, {250, 250, 250}));
  const Json settings = {
      {"split", {{"min_s", 0}}},
      {"captions", {{"model", model}, {"prompt", "What is this?"}, {"max_new_tokens", 6}}},
      {"outputs", {{"cosmos_curate", true}}}};
  const Answer done = run_program("cosmos-curate", run.config(settings).string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  const std::vector<Json> clips = run.lines("clips.jsonl");
  REQUIRE(clips.size() == 1);
  const std::string id = clips[0]["span_uuid"], caption = clips[0]["caption"];
  const fs::path out = run.folder / "said.jsonl";
  const Answer said = run_program("cosmos-reason",
                                  "caption --model " + model + " --video " +
                                      (run.output / clips[0]["video"].get<std::string>()).string() +
                                      " --caption-prompt 'What is this?' --max-new-tokens 6"
                                      " --repetition-penalty 1.05 --output " +
                                      out.string());
  INFO(said.text);
  const std::vector<Json> answers = test::read_text(out);
  REQUIRE(answers.size() == 1);
  CHECK(answers[0]["answer"].get<std::string>().find(caption) != std::string::npos);
  CHECK(caption != "A square.");
  CHECK(modules::read_file(run.output / "metas" / (id + ".txt"), 1000) == caption + "\n");
  const Json meta = modules::read_json(run.output / "cosmos_curate/metas/v0" / (id + ".json"));
  CHECK(meta["windows"][0]["caption"] == caption);
  CHECK(fs::file_size(run.output / "cosmos_curate/clips" / (id + ".mp4")) == meta["num_bytes"]);
}

TEST_CASE("cosmos-curate refuses settings it does not know in one line", "[curate]") {
  Run run;
  const Answer unknown = run_program("cosmos-curate", run.config({{"splitt", 1}}).string());
  CHECK(unknown.code == 1);
  CHECK(unknown.text.find("splitt") != std::string::npos);
  CHECK(std::count(unknown.text.begin(), unknown.text.end(), '\n') == 1);
}

TEST_CASE("cosmos-curate's list for Cosmos 3 leaves out what its loader would, and says so",
          "[curate]") {
  Run run;
  write_footage(run.inputs / "long.mp4", scene(70, {200, 60, 40}, {250, 250, 250}));
  write_footage(run.inputs / "short.mp4", scene(60, {30, 90, 200}, {10, 10, 10}));
  Json settings = {{"caption", "{\"temporal_caption\": \"A square.\"}"},
                   {"dedup", {{"near_bits", -1}}},
                   {"outputs", {{"cosmos3", true}}}};
  const Answer done = run_program("cosmos-curate", run.config(settings).string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  const auto lines = run.lines("cosmos3.jsonl");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["duration"] == 7.0);
  CHECK(lines[0]["width"] == 96);
  CHECK(fs::exists(run.output / lines[0]["vision_path"].get<std::string>()));
  const Json window = lines[0]["t2w_windows"].at(0);
  CHECK(window["end_frame"] == 69);
  CHECK(window["caption_json"]["temporal_caption"] == "A square.");
  CHECK(modules::read_json(run.output / "cosmos3.summary.json") ==
        Json({{"clips", 1}, {"left_out", {{"fewer than 61 frames", 1}}}}));
}

TEST_CASE("cosmos-curate takes videos out of tar shards, its own too", "[curate]") {
  Run loose;
  for (int k = 0; k < 3; ++k)
    write_footage(loose.inputs / ("v" + std::to_string(k) + ".mp4"),
                  scene(30, {60 * k, 60, 200 - 40 * k}, {250, 250, 20 * k}));
  const Json settings = {{"dedup", {{"near_bits", -1}}}, {"outputs", {{"shard_clips", 2}}}};
  REQUIRE(run_program("cosmos-curate", loose.config(settings).string()).code == 0);
  const auto ids = [](const Run& run) {
    std::set<std::string> ids;
    for (const Json& clip : run.lines("clips.jsonl")) ids.insert(clip["span_uuid"]);
    return ids;
  };

  Run packed;
  const std::string to = packed.inputs.string();
  REQUIRE(shell("cd " + loose.inputs.string() + " && echo '{}' > v0.json && tar -cf " + to +
                "/a.tar v0.json v0.mp4 && tar -czf " + to +
                "/b.tar.gz --transform s,^,../../../up/, -P v1.mp4 v2.mp4 && head -c 3000 " + to +
                "/a.tar > " + to + "/cut.tar")
              .code == 0);
  for (int again = 0; again < 2; ++again) {
    const Answer done = run_program("cosmos-curate", packed.config(settings).string());
    INFO(done.text);
    REQUIRE(done.code == 0);
    CHECK(ids(packed) == ids(loose));
    const auto lines = packed.lines("dropped.jsonl");
    REQUIRE(lines.size() == 1);  // what is whole in cut.tar is no video
    CHECK(lines[0]["source_video"].get<std::string>().find("cut.tar") != std::string::npos);
    CHECK(lines[0]["reason"] == "unreadable file");
  }
  for (const auto& file : fs::recursive_directory_iterator(packed.folder.path()))
    CHECK(file.path().filename() != "up");

  Run shards;
  shards.inputs = loose.output / "webdataset/resolution_lt_720/aspect_ratio_4_3/duration_0_5/video";
  const Answer done = run_program("cosmos-curate", shards.config(settings).string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  CHECK(shards.summary()["kept"] == loose.summary()["kept"]);
}
