// What networks say of clips in cosmos-curate: aesthetic scores.

#include <catch2/catch.hpp>

#include "modules/clip/aesthetic.h"
#include "modules/clip/vision_model.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pytorch_file.h"
#include "test/tools/curate_run.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::scene;
using cosmos::test::write_footage;
using Run = cosmos::test::CurateRun;

TEST_CASE("cosmos-curate scores how pleasing clips are and drops the others", "[curate]") {
  torch::NoGradGuard no_grad;
  Run run;
  write_footage(run.inputs / "a.mp4", scene(30, {200, 60, 40}, {250, 250, 250}));
  write_footage(run.inputs / "b.mp4", scene(30, {30, 90, 200}, {10, 10, 10}));
  torch::manual_seed(4);
  modules::ClipVisionModel tower(Json{{"hidden_size", 12},
                                      {"intermediate_size", 20},
                                      {"projection_dim", 6},
                                      {"num_hidden_layers", 1},
                                      {"num_attention_heads", 2},
                                      {"image_size", 16},
                                      {"patch_size", 4}});
  modules::AestheticPredictor head(Json{{"widths", {6, 5, 4, 3, 2, 1}}});
  modules::save_model(run.folder / "clip", tower);
  modules::save_pytorch_file(run.folder / "head.pth",
                             modules::lazy_tensors(modules::file_tensors(head)));
  Json aesthetic = {{"model", (run.folder / "clip").string()},
                    {"head", (run.folder / "head.pth").string()}};
  const auto curate = [&](const std::string& output) {
    run.output = run.folder / output;
    const Answer done = run_program(
        "cosmos-curate",
        run.config({{"aesthetic", aesthetic}, {"outputs", {{"cosmos_curate", true}}}}).string());
    INFO(done.text);
    REQUIRE(done.code == 0);
    return run.lines("clips.jsonl");
  };

  std::vector<double> scores;
  for (const Json& clip : curate("scored")) {
    const std::string source = clip["source_video"];
    const Tensor frames =
        trainer::read_frames_at(source, trainer::probe_video(source), {0.5, 1.5, 2.5}, {});
    const double want =
        head.forward(tower.forward(modules::clip_pixels(frames, 16, {}))).min().item<double>();
    scores.push_back(clip["scores"]["aesthetic"]);
    CHECK(scores.back() == Approx(want).margin(1e-5));
    const Json meta = modules::read_json(run.output / "cosmos_curate/metas/v0" /
                                         (clip["span_uuid"].get<std::string>() + ".json"));
    CHECK(meta["aesthetic_score"] == scores.back());
  }
  REQUIRE(scores.size() == 2);
  REQUIRE(std::abs(scores[0] - scores[1]) > 1e-4);

  aesthetic["min_score"] = (scores[0] + scores[1]) / 2;
  const std::vector<Json> kept = curate("filtered");
  REQUIRE(kept.size() == 1);
  CHECK(kept[0]["scores"]["aesthetic"] == std::max(scores[0], scores[1]));
  const std::vector<Json> dropped = run.lines("dropped.jsonl");
  REQUIRE(dropped.size() == 1);
  CHECK(dropped[0]["reason"] == "low aesthetic score");
  CHECK(dropped[0]["scores"]["aesthetic"] == std::min(scores[0], scores[1]));

  aesthetic.erase("head");
  const Answer refused =
      run_program("cosmos-curate", run.config({{"aesthetic", aesthetic}}).string());
  CHECK(refused.code == 1);
  CHECK(refused.text.find("expected model and head, or neither") != std::string::npos);
}
