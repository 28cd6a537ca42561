// A robot's states as actions, from files and beside the frames of a window.

#include <catch2/catch.hpp>
#include <fstream>
#include <iostream>

#include "modules/hub/json_file.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/registry.h"
#include "trainer/data/robot_actions.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

Json annotation() {
  return {{"state",
           {{0.3, -0.1, 0.2, 0.4, -0.7, 1.2},
            {0.35, 0.02, 0.15, 3.0, 0.3, -2.5},
            {0.1, 0.0, 0.3, -1.0, 1.1, 0.2}}},
          {"continuous_gripper_state", {0.0, 1.0, 0.25}}};
}

}  // namespace

TEST_CASE("actions are the next pose as the gripper sees it", "[actions]") {
  const auto robot = RobotActions::parse(annotation(), "test", {.pose = 20, .gripper = 2});
  CHECK(robot.frames() == 3);
  // Computed with quaternions: q_i^-1 q_j, and p_j - p_i turned by q_i^-1.
  const auto row = [](std::vector<double> numbers) {
    return torch::tensor(numbers).to(torch::kFloat32);
  };
  const Tensor first = row({1.343800, -1.007375, -2.222476, -51.604094, -1.510619, 50.380596, 2});
  const Tensor second =
      row({3.168945, 3.226653, -3.702229, 26.900145, -24.193458, -38.854198, 0.5});
  const Tensor across =
      row({1.605575, 4.593031, -0.571134, -42.807170, 13.492648, -41.776194, 0.5});
  CHECK(robot.all().allclose(torch::stack({first, second}), 0, 1e-4));
  CHECK(robot.between({0, 2})[0].allclose(across, 0, 1e-4));
  // Straight up: roll alone is left of roll and yaw.
  Json upright = annotation();
  upright["state"][0] = {0, 0, 0, 0, 0, 0};
  upright["state"][1] = {0, 0, 0, 0.5, M_PI / 2, 0};
  const Tensor turned = RobotActions::parse(upright, "test", {.pose = 1}).between({0, 1})[0];
  CHECK(turned.slice(0, 3, 6).allclose(row({0.5, M_PI / 2, 0}), 0, 1e-5));
}

TEST_CASE("ready-made actions are taken as they are", "[actions]") {
  const auto robot = RobotActions::parse({{"actions", {{1, 2}, {3, 4}, {5, 6}}}}, "test");
  CHECK(robot.frames() == 4);
  CHECK(robot.width() == 2);
  CHECK(robot.between({1, 2, 3}).equal(torch::tensor({{3.f, 4.f}, {5.f, 6.f}})));
  CHECK_THROWS_WITH(robot.between({0, 2}), Contains("cannot skip frames"));
  CHECK_THROWS_WITH(robot.between({3, 4}), Contains("frame 4 is needed"));
}

TEST_CASE("annotations that cannot be read end in one line", "[actions]") {
  const auto refused = [](const char* change, const std::string& part) {
    Json json = annotation();
    json.merge_patch(Json::parse(change));
    CHECK_THROWS_WITH(RobotActions::parse(json, "a.json"), Contains("a.json: ") && Contains(part));
  };
  refused(R"({"state": null})", "`state`");
  refused(R"({"continuous_gripper_state": null})", "continuous_gripper_state");
  refused(R"({"continuous_gripper_state": [0, 1]})", "3 states, but 2");
  refused(R"({"state": [[1, 2, 3]]})", "state[0]: expected 6 numbers, got 3");
  refused(R"({"state": [[1, 2, 3, 4, 5, "x"]]})", "state[0]: expected numbers");
  refused(R"({"state": []})", "expected rows");
}

TEST_CASE("windows of annotated clips carry their frames' actions", "[actions][dataset]") {
  if (!media_available()) return void(std::cout << "SKIPPED: FFmpeg is not there\n");
  const test::TempFolder dir;
  fs::create_directories(dir / "videos/7");
  fs::create_directories(dir / "annotation/train");
  const Tensor level = torch::arange(20) * 8;  // frame t is of grey level 8 t
  write_video(dir / "videos/7/rgb.mp4",
              level.view({-1, 1, 1, 1}).expand({20, 16, 32, 3}).to(torch::kUInt8),
              {.fps = 10, .quality = 2});
  Json json{{"videos", {{{"video_path", "videos/7/rgb.mp4"}}}}, {"texts", {"lift the cup"}}};
  for (int t = 0; t < 16; ++t) {  // the last four frames have no state
    json["state"].push_back({0.01 * t * t, 0, 0, 0, 0, 0});
    json["continuous_gripper_state"].push_back(t);
  }
  modules::write_json(dir / "annotation/train/7.json", json);
  Json config{{"path", (dir / "").string()},
              {"actions", "annotation/train"},
              {"num_frames", 5},
              {"height", 16},
              {"width", 32},
              {"windows", "all"},
              {"stride", 1}};
  const auto first_frame = [](const Sample& sample) {
    return std::llround(
        sample.tensors.at("video").select(1, 0).to(torch::kFloat32).mean().item<double>() / 8);
  };
  const auto data = make_dataset(config, "data");
  REQUIRE(data->size() == 12);
  const Sample sample = data->get(6, 1, 0);
  CHECK(first_frame(sample) == 6);
  CHECK(sample.text.at("caption") == "lift the cup");
  const Tensor action = sample.tensors.at("action");
  REQUIRE(action.sizes() == at::IntArrayRef({4, 7}));
  CHECK(action.select(1, 6).equal(torch::tensor({7.f, 8.f, 9.f, 10.f})));
  CHECK(
      action.select(1, 0).allclose(torch::tensor({2.6f, 3.0f, 3.4f, 3.8f})));  // 20 (2 t + 1) / 100

  config["fps"] = 5;  // every second frame
  config["num_frames"] = 4;
  const auto slow = make_dataset(config, "data");
  REQUIRE(slow->size() == 5);
  const Sample skipped = slow->get(2, 1, 0);
  CHECK(first_frame(skipped) == 4);
  CHECK(skipped.tensors.at("action").select(1, 6).equal(torch::tensor({6.f, 8.f, 10.f})));

  config["horizontal_flip"] = true;
  CHECK_THROWS_WITH(make_dataset(config, "data"), Contains("move the other way"));
  config["horizontal_flip"] = false;
  config["camera"] = 3;
  CHECK_THROWS_WITH(make_dataset(config, "data"), Contains("there is no camera 3"));
}
