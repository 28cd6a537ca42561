// cosmos-generate with several cameras, from files to files.

#include <filesystem>
#include <fstream>

#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_multiview.h"
#include "tools/generate_views.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using Catch::Matchers::Contains;

TEST_CASE("views stand in rows, black where there is none", "[generate][multiview]") {
  const Tensor frames =
      torch::arange(1, 4)
          .repeat_interleave(2)
          .view({6, 1, 1, 1})
          .expand({6, 2, 1, 3});  // three views of two frames: all 1, all 2, all 3
  const Tensor grid = tools::view_grid(frames.to(torch::kUInt8), 3);
  CHECK(grid.sizes() == at::IntArrayRef({2, 4, 2, 3}));
  const Tensor picture = grid[1].select(2, 0);
  CHECK(picture.equal(torch::tensor({{1, 2}, {1, 2}, {3, 0}, {3, 0}}, torch::kUInt8)));
}

TEST_CASE("a clip of three cameras: a video each and their grid", "[generate][multiview]") {
  if (!trainer::media_available()) return;
  const test::TempFolder dir;
  const auto path = [&](const std::string& name) { return (dir / name).string(); };
  save_world_pipeline(dir / "pipeline", test::tiny_multiview_pipeline());
  for (int k = 0; k < 3; ++k) {
    Tensor video = torch::zeros({12, 16, 32, 3}, torch::kUInt8);
    for (int64_t t = 0; t < 12; ++t) video[t].narrow(1, t, 8).fill_(80 * k + 60);
    trainer::write_video(dir / (std::to_string(k) + ".mp4"), video, {.fps = 30, .quality = 2});
    trainer::write_png(dir / (std::to_string(k) + ".png"), video[3]);
  }
  const auto generate = [&](const std::string& options) {
    return test::run_program("cosmos-generate", "--pipeline " + path("pipeline") + " --output " +
                                                    path("out.mp4") + " --output-tensors " +
                                                    path("out.safetensors") +
                                                    " --height 16 --width 32 --steps 2 " + options);
  };
  const auto latents = [&] {
    return modules::load_safetensors(dir / "out.safetensors").at("latents");
  };
  const std::string views = "--view front_wide=" + path("0.mp4") + " --view rear=" + path("1.mp4") +
                            " --view 5=" + path("2.mp4");
  const test::Answer answer = generate(views);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Tensor first = latents();
  CHECK(first.sizes() == at::IntArrayRef({1, 4, 9, 2, 4}));
  for (const char* name : {"out", "out-front_wide", "out-rear", "out-cross_left"}) {
    const auto info = trainer::probe_video(dir / (std::string(name) + ".mp4"));
    CHECK(info.frames() == 9);
    CHECK(info.width == (std::string(name) == "out" ? 64 : 32));
  }
  const Json record = modules::read_json(dir / "out.json");
  CHECK(record["views"][1]["camera"] == "rear");
  CHECK(record["condition_frames"] == 2);
  CHECK(record["num_frames"] == 9);
  // The same from pixels that are handed over; other starts make other clips.
  const Tensor frames = modules::load_safetensors(dir / "out.safetensors").at("frames");
  CHECK(frames.sizes() == at::IntArrayRef({1, 27, 3, 16, 32}));
  REQUIRE(generate("--view front_wide=" + path("0.png") + " --view rear=" + path("1.png")).code ==
          0);
  CHECK(modules::read_json(dir / "out.json")["condition_frames"] == 1);
  REQUIRE(generate("--view front_wide --view rear --view 5").code == 0);
  CHECK_FALSE(latents().allclose(first));

  // A list of clips names the same settings.
  std::ofstream(dir / "list.jsonl")
      << R"({"name": "a", "view": ["front_wide=0.mp4", "rear=1.mp4", "5=2.mp4"], )"
      << R"("output_tensors": "a.safetensors"})"
      << "\n";
  const test::Answer list = test::run_program(
      "cosmos-generate", "--pipeline " + path("pipeline") + " --prompts " + path("list.jsonl") +
                             " --output " + path("clips") + " --height 16 --width 32 --steps 2");
  INFO(list.text);
  REQUIRE(list.code == 0);
  CHECK(modules::load_safetensors(dir / "clips/a.safetensors").at("latents").equal(first));
  CHECK(std::filesystem::exists(dir / "clips/a-rear.mp4"));

  const auto refused = [&](const std::string& options, const std::string& part) {
    const test::Answer answer = generate(options);
    INFO(answer.text);
    CHECK(answer.code == 1);
    CHECK_THAT(answer.text, Contains(part));
  };
  refused("--view rear_lfet", "did you mean rear_left?");
  refused("--view rear --view 3", "given twice");
  refused("--view rear --view-prompt front_wide=x", "no --view of that name");
  refused("--view rear --view front_wide=" + path("0.mp4"), "expected all or none");
  refused("--view rear --image " + path("0.png"), "each view has its own file");
  refused("--view 9", "from 0 to 6");
}

TEST_CASE("every camera's control comes from its own file", "[generate][multiview][transfer]") {
  if (!trainer::media_available()) return;
  const test::TempFolder dir;
  const auto path = [&](const std::string& name) { return (dir / name).string(); };
  save_world_pipeline(dir / "pipeline", test::tiny_multiview_transfer_pipeline());
  for (int k = 0; k < 2; ++k)
    trainer::write_video(dir / (std::to_string(k) + ".mp4"),
                         torch::full({9, 16, 32, 3}, 90 * k + 60, torch::kUInt8),
                         {.fps = 30, .quality = 2});
  const auto generate = [&](const std::string& controls) {
    return test::run_program(
        "cosmos-generate", "--pipeline " + path("pipeline") + " --output " + path("out.mp4") +
                               " --output-tensors " + path("out.safetensors") +
                               " --height 16 --width 32 --steps 2 --view rear --view 5" + controls);
  };
  const auto latents = [&] {
    return modules::load_safetensors(dir / "out.safetensors").at("latents");
  };
  const std::string rear = " --control hdmap/rear=" + path("0.mp4"),
                    left = " --control hdmap/cross_left=" + path("1.mp4");
  const test::Answer answer = generate(rear + left);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Tensor led = latents();
  CHECK(led.sizes() == at::IntArrayRef({1, 4, 6, 2, 4}));
  REQUIRE(generate(left + rear).code == 0);
  CHECK(latents().equal(led));
  REQUIRE(generate(" --control hdmap/rear=" + path("1.mp4") + " --control hdmap/5=" + path("0.mp4"))
              .code == 0);
  CHECK_FALSE(latents().allclose(led));
  const auto refused = [&](const std::string& options, const std::string& part) {
    const test::Answer answer = generate(options);
    INFO(answer.text);
    CHECK(answer.code == 1);
    CHECK_THAT(answer.text, Contains(part));
  };
  refused(rear, "expected hdmap/cross_left=FILE too");
  refused(rear + left + " --control hdmap/front_tele=" + path("0.mp4"), "is no --view");
  refused(rear + ":0.5" + left, "weight of the other views");
  refused("", "needs a control video");
}
