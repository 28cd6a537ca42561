// Burnt-in text in cosmos-curate: letters that stand still on a picture that moves. Real clips with
// text that ffmpeg draws: test/reference/text_overlay_proof.py.

#include <catch2/catch.hpp>

#include "test/tools/curate_run.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::write_footage;
using Run = cosmos::test::CurateRun;

namespace {

constexpr int64_t kFrames = 40;

/// Squares of random grey that move `step` pixels a frame to the left.
Tensor texture(int64_t step) {
  torch::manual_seed(6);
  const Tensor squares = torch::randint(0, 256, {16, 1, 80, 1}, torch::kUInt8);
  const Tensor wide = squares.expand({16, 4, 80, 4}).reshape({64, 320, 1}).expand({64, 320, 3});
  Tensors frames;
  for (int64_t t = 0; t < kFrames; ++t) frames.push_back(wide.slice(1, t * step, t * step + 96));
  return torch::stack(frames);
}

/// Strokes of letters: seven white bars two pixels wide on black, ten rows high, `step` pixels a
/// frame to the right.
Tensor with_bars(Tensor clip, int64_t step) {
  for (int64_t t = 0; t < kFrames; ++t)
    for (int64_t bar = 0; bar < 7; ++bar) {
      const int64_t left = 4 + t * step + 7 * bar;
      const Tensor rows = clip[t].slice(0, 48, 58);
      rows.slice(1, left, left + 7).fill_(0);
      rows.slice(1, left + 1, left + 3).fill_(255);
    }
  return clip;
}

}  // namespace

TEST_CASE("cosmos-curate drops clips with static text and no others", "[curate]") {
  Run run;
  write_footage(run.inputs / "plain.mp4", texture(1));
  write_footage(run.inputs / "text.mp4", with_bars(texture(1), 0));
  write_footage(run.inputs / "ticker.mp4", with_bars(texture(1), 1));
  write_footage(run.inputs / "still.mp4", with_bars(texture(0), 0));
  const Json settings = {{"split", {{"method", "stride"}}},
                         {"filter", {{"max_frozen", 1}, {"max_text", 0.01}}},
                         {"dedup", {{"near_bits", -1}}}};
  const Answer done = run_program("cosmos-curate", run.config(settings).string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  const std::vector<Json> dropped = run.lines("dropped.jsonl");
  REQUIRE(dropped.size() == 1);
  CHECK(dropped[0]["source_video"].get<std::string>().find("/text.mp4") != std::string::npos);
  CHECK(dropped[0]["reason"] == "text");
  // Ten rows of 49 pixels are 8 % of the picture, the places around them more.
  CHECK(dropped[0]["scores"]["text"].get<double>() > 0.05);
  CHECK(dropped[0]["scores"]["text"].get<double>() < 0.25);
  const std::vector<Json> kept = run.lines("clips.jsonl");
  REQUIRE(kept.size() == 3);
  for (const Json& clip : kept) {
    INFO(clip.dump());
    const bool still = clip["source_video"].get<std::string>().find("/still") != std::string::npos;
    CHECK(clip["scores"]["text"].is_null() == still);
    if (!still) CHECK(clip["scores"]["text"] == 0.0);
  }
  CHECK(run_program("cosmos-curate", run.config({{"filter", {{"max_text", 2}}}}).string())
            .text.find("filter.max_text: expected 0 to 1") != std::string::npos);
}
