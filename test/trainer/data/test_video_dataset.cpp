// Clips as a dataset: folders and lists, windows, ranges, buckets, bad clips, latents.
#include <catch2/catch.hpp>
#include <fstream>
#include <iostream>
#include <set>

#include "modules/hub/safetensors.h"
#include "trainer/data/loader.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/registry.h"
#include "trainer/data/video_dataset.h"

using namespace cosmos;
using namespace cosmos::trainer;
namespace fs = std::filesystem;

namespace {

// A data folder in the Cosmos Predict2 layout, removed at the end.
struct DataFolder {
  fs::path path;
  DataFolder() {
    std::string name = (fs::temp_directory_path() / "cosmos_data_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~DataFolder() { fs::remove_all(path); }

  void video(const std::string& name, int64_t frames, int64_t height = 32, int64_t width = 64) {
    // Frame t is of grey level 8 t: the level of a window's frames tells where it came from.
    Tensor level = torch::arange(frames) * 8;
    write_video(path / name,
                level.view({-1, 1, 1, 1}).expand({frames, height, width, 3}).to(torch::kUInt8),
                {.fps = 10, .quality = 4});
  }
  void text(const std::string& name, const std::string& text) {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name) << text;
  }
  Json config(Json more = Json::object()) const {
    Json json{{"path", path.string()}, {"num_frames", 4}, {"height", 16}, {"width", 32}};
    if (!more.is_null()) json.update(more);
    return json;
  }
};

int64_t first_frame(const Sample& sample) {
  return std::llround(
      sample.tensors.at("video").select(1, 0).to(torch::kFloat32).mean().item<double>() / 8);
}

bool no_media() {
  if (!media_available()) std::cout << "SKIPPED: FFmpeg is not there\n";
  return !media_available();
}

}  // namespace

TEST_CASE("a Predict2 folder gives windows with captions and rates", "[dataset]") {
  if (no_media()) return;
  DataFolder dir;
  dir.video("videos/a.mp4", 12);
  dir.video("videos/b.mp4", 8);
  dir.text("metas/a.txt", "a cat\n");
  dir.text("videos/.hidden.mp4", "x");
  auto data = make_dataset(dir.config({{"caption", "a default"}}), "data");
  REQUIRE(data->size() == 2);
  const Sample sample = data->get(0, 1, 5);
  CHECK(sample.tensors.at("video").sizes() == at::IntArrayRef({3, 4, 16, 32}));
  CHECK(sample.tensors.at("video").scalar_type() == torch::kUInt8);
  CHECK(sample.tensors.at("fps").item<float>() == 10);
  CHECK(sample.text.at("caption") == "a cat");
  CHECK(data->get(1, 1, 5).text.at("caption") == "a default");
  CHECK(data->item_name(1) == "videos/b.mp4");
  // The window is a function of (seed, sample index), and covers the clip.
  std::set<int64_t> starts;
  for (int64_t i = 0; i < 60; ++i) {
    const int64_t start = first_frame(data->get(0, 1, i));
    CHECK(start == first_frame(data->get(0, 1, i)));
    starts.insert(start);
  }
  CHECK(starts == std::set<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
  // Pixels kept in memory and pixels read for the occasion are the same.
  auto uncached = make_dataset(dir.config({{"cache_mb", 0}}), "data");
  CHECK(torch::equal(uncached->get(0, 1, 5).tensors.at("video"), sample.tensors.at("video")));
}

TEST_CASE("all windows of a part of a clip, training and held-out parts apart", "[dataset]") {
  if (no_media()) return;
  DataFolder dir;
  dir.video("clip.mp4", 20);
  Json config = dir.config({{"windows", "all"}, {"stride", 3}, {"to", 0.8}});
  config["path"] = (dir.path / "clip.mp4").string();
  auto train = make_dataset(config, "data");
  REQUIRE(train->size() == 5);  // 0 3 6 9 12, each 4 long, of frames 0 to 15
  for (int64_t i = 0; i < 5; ++i) CHECK(first_frame(train->get(i, 0, 100 + i)) == 3 * i);
  CHECK(train->item_name(2) == "clip.mp4 from frame 6");
  config["from"] = 0.8;
  config["to"] = 1;
  auto held_out = make_dataset(config, "data");
  REQUIRE(held_out->size() == 1);
  CHECK(first_frame(held_out->get(0, 0, 0)) == 16);
  config["num_frames"] = 9;
  CHECK_THROWS_WITH(
      make_dataset(config, "x.json: recipe.data"),
      Catch::StartsWith("x.json: recipe.data: ") &&
          Catch::EndsWith("clip.mp4: too short: 4 of its 20 frames at 10 fps lie between from 0.8 "
                          "and to 1, a window has 9 (num_frames: set 4 or less, or raise fps, or "
                          "widen from and to)"));
}

TEST_CASE("clips go to the bucket nearest in shape; mirrored only when asked", "[dataset]") {
  if (no_media()) return;
  DataFolder dir;
  dir.video("a.mp4", 6, 32, 64);
  dir.video("b.mp4", 6, 64, 32);
  Json config = dir.config({{"buckets", {{16, 32}, {32, 16}}}, {"horizontal_flip", true}});
  config.erase("height");
  config.erase("width");
  auto data = make_dataset(config, "data");
  CHECK(data->bucket(0) == 0);
  CHECK(data->bucket(1) == 1);
  CHECK(data->get(1, 0, 0).tensors.at("video").sizes() == at::IntArrayRef({3, 4, 32, 16}));
  DataLoader loader(data, {.micro_batch_size = 2});
  for (int64_t step = 0; step < 4; ++step) CHECK(loader.next(step)[0].indices.size() == 2);
}

TEST_CASE("horizontal flips mirror about half of the samples", "[dataset]") {
  if (no_media()) return;
  DataFolder dir;
  Tensor frames = torch::zeros({4, 16, 32, 3}, torch::kUInt8);
  frames.narrow(2, 0, 16).fill_(200);  // bright on the left
  write_video(dir.path / "a.mp4", frames, {.fps = 10, .quality = 4});
  for (const bool flip : {false, true}) {
    auto data = make_dataset(dir.config({{"horizontal_flip", flip}}), "data");
    int mirrored = 0;
    for (int64_t i = 0; i < 40; ++i)
      mirrored += data->get(0, 3, i).tensors.at("video")[0][0][8][2].item<int>() < 100;
    CHECK(mirrored == (flip ? Approx(20).margin(12) : Approx(0)));
  }
}

TEST_CASE("lists of videos and caption files", "[dataset]") {
  if (no_media()) return;
  DataFolder dir;
  dir.video("far/b.mp4", 6);
  dir.video("far/a.mp4", 6);
  dir.text("list.txt", "# comment\nfar/b.mp4\nfar/a.mp4\n");
  dir.text("list.jsonl", "{\"video\": \"far/a.mp4\", \"caption\": \"one\"}\n\n");
  dir.text("captions.jsonl", "{\"video\": \"a.mp4\", \"caption\": \"two\"}\n");
  const auto open = [&](const char* path, Json more) {
    Json config = dir.config(more);
    config["path"] = (dir.path / path).string();
    return make_dataset(config, "data");
  };
  CHECK(open("list.txt", {})->item_name(0) == "far/b.mp4");
  CHECK(open("list.jsonl", {})->get(0, 0, 0).text.at("caption") == "one");
  CHECK(open("far", {{"captions", (dir.path / "captions.jsonl").string()}})
            ->get(0, 0, 0)
            .text.at("caption") == "two");
  dir.text("bad.jsonl", "{\"video\": 3}\n");
  CHECK_THROWS_WITH(open("bad.jsonl", {}), Catch::Contains("bad.jsonl line 1: expected an object"));
}

TEST_CASE("bad clips are left out and named; too many are an error with the list", "[dataset]") {
  if (no_media()) return;
  DataFolder dir;
  dir.video("videos/a.mp4", 8);
  dir.video("videos/b.mp4", 2);
  dir.text("videos/c.mp4", "not a video");
  dir.text("videos/d.mp4", "");
  CHECK_THROWS_WITH(make_dataset(dir.config(), "data"),
                    Catch::StartsWith("data: 3 of 4 clips cannot be used") &&
                        Catch::Contains("b.mp4: too short: 2 of its 2 frames") &&
                        Catch::Contains("c.mp4: is not a readable video") &&
                        Catch::Contains("d.mp4: is empty"));
  auto data = make_dataset(dir.config({{"max_failed_fraction", 0.9}}), "data");
  CHECK(data->size() == 1);
  REQUIRE(data->left_out().size() == 3);
  CHECK(data->left_out()[1].first == "videos/c.mp4");
  DataLoader loader(data, {.micro_batch_size = 2});
  loader.next(0);
  CHECK(loader.failures().size() == 3);
}

TEST_CASE("settings that cannot work are one-line errors", "[dataset]") {
  DataFolder dir;
  const auto refused = [&](Json more, const std::string& message) {
    CHECK_THROWS_WITH(make_dataset(dir.config(more), "x.json: data"), Catch::Contains(message));
  };
  refused({}, "x.json: data.path: " + dir.path.string() + " holds no videos");
  refused({{"path", "/nowhere"}}, "x.json: data.path: /nowhere does not exist");
  refused({{"path", ""}}, "x.json: data.path: expected a folder or a video file");
  refused({{"fit", "corp"}}, "fit: \"corp\" is none of crop, pad, stretch (did you mean crop?)");
  refused({{"num_frame", 3}}, "x.json: data.num_frame is not a setting (did you mean num_frames?)");
  refused({{"from", 0.9}, {"to", 0.1}}, "expected 0 <= from < to <= 1, got 0.9 and 0.1");
  refused({{"height", 0}}, "expected 1 to 16384 pixels");
  refused({{"type", "vidoe"}},
          "x.json: data.type: \"vidoe\" is not a dataset (did you mean video?)");
  const Json resolved = check_dataset(dir.config(), "data");
  CHECK(resolved["type"] == "video");
  CHECK(resolved["fit"] == "crop");
  CHECK_NOTHROW(check_dataset(resolved, "data"));
}

TEST_CASE("precomputed latents and text embeddings stand in for pixels", "[dataset]") {
  DataFolder dir;
  fs::create_directories(dir.path / "latents");
  fs::create_directories(dir.path / "text_embeds");
  for (const std::string name : {"a", "b", "c"}) {
    const int64_t width = name == "c" ? 6 : 4;
    modules::save_safetensors(dir.path / "latents" / (name + ".safetensors"),
                              {{"latents", torch::ones({16, 2, 3, width})}});
    if (name != "b")
      modules::save_safetensors(dir.path / "text_embeds" / (name + ".safetensors"),
                                {{"text_embeds", torch::ones({1, 5, 8})}});
  }
  CHECK_THROWS_WITH(make_dataset(dir.config(), "data"), Catch::Contains("has no text embeddings"));
  auto data = make_dataset(dir.config({{"max_failed_fraction", 0.5}}), "data");
  REQUIRE(data->size() == 2);
  CHECK(data->bucket(0) != data->bucket(1));
  const Sample sample = data->get(1, 0, 0);
  CHECK(sample.tensors.at("latents").sizes() == at::IntArrayRef({16, 2, 3, 6}));
  CHECK(sample.tensors.at("text_embeds").sizes() == at::IntArrayRef({5, 8}));
  CHECK(sample.tensors.count("video") == 0);
}

TEST_CASE("embedders add datasets of their own", "[dataset]") {
  class Two : public Dataset {
   public:
    int64_t size() const override { return 2; }
    Sample get(int64_t, uint64_t, int64_t) override { return {}; }
  };
  register_dataset("two", [](const Json& json, const std::string& where) {
    require(json.empty(), where, ": takes no settings");
    return std::make_shared<Two>();
  });
  CHECK(make_dataset({{"type", "two"}}, "data")->size() == 2);
  CHECK(check_dataset({{"type", "two"}, {"a", 1}}, "data")["a"] == 1);
  CHECK_THROWS_WITH(make_dataset({{"type", "two"}, {"a", 1}}, "data"), "data: takes no settings");
}
