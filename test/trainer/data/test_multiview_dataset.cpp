// Clips of several cameras: the same times in every view, texts beside each other.

#include <catch2/catch.hpp>
#include <fstream>

#include "modules/hub/safetensors.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/multiview_dataset.h"
#include "trainer/data/registry.h"

namespace cosmos::trainer {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;

// Frame t of camera k is as bright as 20 t + 5 k.
void write_clip(const fs::path& path, int64_t frames, int64_t camera) {
  fs::create_directories(path.parent_path());
  Tensor video = torch::zeros({frames, 16, 32, 3}, torch::kUInt8);
  for (int64_t t = 0; t < frames; ++t) video[t].fill_(20 * t + 5 * camera);
  write_video(path, video, {.fps = 10, .quality = 1});
}

Json settings(const fs::path& dir) {
  return {{"type", "multiview"},
          {"path", dir.string()},
          {"cameras", {"front=front_wide", "left=cross_left"}},
          {"num_frames", 5},
          {"height", 16},
          {"width", 32},
          {"text_tokens", 3}};
}

}  // namespace

TEST_CASE("views of a window show the same times", "[data][multiview]") {
  if (!media_available()) return;
  const test::TempFolder dir;
  for (const char* name : {"a.mp4", "b.mp4"})
    for (const int64_t k : {0, 1})
      write_clip(dir / "videos" / (k ? "left" : "front") / name, k ? 9 : 11, k);
  fs::create_directories(dir / "metas/front");
  std::ofstream(dir / "metas/front/b.txt") << "a street\n";
  const auto data = make_dataset(settings(dir.path()), "data");
  CHECK(data->size() == 2);
  for (int64_t sample = 0; sample < 4; ++sample) {
    const Sample one = data->get(1, 7, sample);
    const Tensor video = one.tensors.at("video");
    REQUIRE(video.sizes() == at::IntArrayRef({6, 5, 16, 32}));
    const Tensor light = video.to(torch::kFloat32).mean({2, 3});  // [6, T]
    CHECK((light[3] - light[0] - 5).abs().max().item<double>() < 2.5);
    CHECK((light[0].diff() - 20).abs().max().item<double>() < 2.5);
    CHECK(one.tensors.at("view_indices").equal(torch::tensor({0, 5})));
    CHECK(one.tensors.at("fps").item<double>() == Approx(10));
    CHECK(one.text.at("caption") == "a street");
    CHECK(data->get(1, 7, sample).tensors.at("video").equal(video));
  }
}

TEST_CASE("texts of views stand one after another", "[data][multiview]") {
  if (!media_available()) return;
  const test::TempFolder dir;
  for (const int64_t k : {0, 1})
    write_clip(dir / "videos" / (k ? "left" : "front") / "a.mp4", 5, k);
  const auto write = [&](const char* camera, int64_t tokens, double value) {
    fs::create_directories(dir / "text_embeds" / camera);
    modules::save_safetensors(dir / "text_embeds" / camera / "a.safetensors",
                              {{"text_embeds", torch::full({tokens, 2}, value)}});
  };
  write("front", 2, 1);
  CHECK_THROWS_WITH(make_dataset(settings(dir.path()), "data"), Contains("front_caption_only"));
  Json front = settings(dir.path());
  front["front_caption_only"] = true;
  const Tensor alone = make_dataset(front, "data")->get(0, 1, 0).tensors.at("text_embeds");
  CHECK(alone.select(1, 0).equal(torch::tensor({1., 1., 0., 0., 0., 0.})));
  write("left", 5, 2);
  const Tensor both =
      make_dataset(settings(dir.path()), "data")->get(0, 1, 0).tensors.at("text_embeds");
  CHECK(both.select(1, 1).equal(torch::tensor({1., 1., 0., 2., 2., 2.})));
}

TEST_CASE("clips that one camera lacks are left out and named", "[data][multiview]") {
  if (!media_available()) return;
  const test::TempFolder dir;
  for (const char* name : {"a.mp4", "b.mp4", "c.mp4"})
    write_clip(dir / "videos/front" / name, 7, 0);
  write_clip(dir / "videos/left/a.mp4", 7, 1);
  write_clip(dir / "videos/left/c.mp4", 4, 1);
  Json config = settings(dir.path());
  CHECK_THROWS_WITH(make_dataset(config, "data"), Contains("2 of 3 clips") && Contains("b.mp4"));
  config["max_failed_fraction"] = 0.7;
  config["windows"] = "all";
  config["stride"] = 2;
  const auto data = make_dataset(config, "data");
  CHECK(data->size() == 2);
  CHECK(data->item_name(1) == "a.mp4 from frame 2");
  REQUIRE(data->left_out().size() == 2);
  CHECK_THAT(data->left_out()[1].second, Contains("too short"));
}

TEST_CASE("every camera comes with its control video", "[data][multiview][transfer]") {
  if (!media_available()) return;
  const test::TempFolder dir;
  // hdmap/ has the frames of camera k + 2.
  for (const int64_t k : {0, 1}) {
    const std::string camera = k ? "left" : "front";
    write_clip(dir / "videos" / camera / "a.mp4", 9, k);
    write_clip(dir / "hdmap" / camera / "a.mp4", 10, k + 2);
  }
  fs::create_directories(dir / "captions/left");
  std::ofstream(dir / "captions/left/a.json") << R"({"caption": "a street"})";
  Json config = settings(dir.path());
  config["control"] = "hdmap";
  const Sample one = make_dataset(config, "data")->get(0, 7, 3);
  CHECK(one.text.at("caption") == "a street");
  const auto light = [](const Tensor& x) { return x.to(torch::kFloat32).mean({2, 3}); };
  const Tensor more = light(one.tensors.at("control")) - light(one.tensors.at("video"));
  REQUIRE(more.sizes() == at::IntArrayRef({6, 5}));
  CHECK((more - 10).abs().max().item<double>() < 2.5);  // the same times, camera by camera

  // Two controls: all views of the first, then those of the second. Blur of even frames is them.
  config["control"] = "hdmap,blur";
  const Sample two = make_dataset(config, "data")->get(0, 7, 3);
  const Tensor control = two.tensors.at("control");
  REQUIRE(control.size(0) == 12);
  CHECK(control.narrow(0, 0, 6).equal(one.tensors.at("control")));
  CHECK(
      (light(control.narrow(0, 6, 6)) - light(one.tensors.at("video"))).abs().max().item<double>() <
      2.5);

  // What is wrong with a control is said with its camera.
  fs::remove(dir / "hdmap/left/a.mp4");
  config["control"] = "hdmap";
  CHECK_THROWS_WITH(make_dataset(config, "data"),
                    Contains("left/a.mp4 has no hdmap video (control)"));
  write_clip(dir / "hdmap/left/a.mp4", 6, 3);
  CHECK_THROWS_WITH(make_dataset(config, "data"),
                    Contains("hdmap/left/a.mp4: too short: 6 frames, left/a.mp4 is used up to 9"));
  config["to"] = 0.6;
  CHECK(make_dataset(config, "data")->size() == 1);
}

TEST_CASE("multi-view settings that cannot work are refused", "[data][multiview]") {
  const auto refused = [](const char* change, const std::string& part) {
    Json config = settings("nowhere");
    config.merge_patch(Json::parse(change));
    CHECK_THROWS_WITH(check_dataset(config, "data"), Contains(part));
  };
  refused(R"({"cameras": []})", "data.cameras");
  refused(R"({"cameras": ["a=front_wide", "b=0"]})", "each camera once");
  refused(R"({"cameras": ["a=front_wied"]})", "did you mean front_wide");
  refused(R"({"height": 0})", "data.height");
  refused(R"({"control": "../hdmap"})", "data.control");
  refused(R"({"control": "edge", "control_strength": "lo"})", "data.control_strength");
  refused(R"({"camera": 1})", "did you mean cameras");
  CHECK_THROWS_WITH(make_dataset(settings("nowhere"), "data"), Contains("nowhere"));
}

}  // namespace cosmos::trainer
