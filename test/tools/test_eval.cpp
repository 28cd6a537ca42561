// cosmos-eval from outside: numbers of clips whose differences are known, and what it refuses.

#include <catch2/catch.hpp>
#include <torch/script.h>

#include "modules/hub/json_file.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using cosmos::test::TempFolder;

namespace {

// Lossless, so that decoded frames are what was written.
void write(const std::filesystem::path& path, const Tensor& frames) {
  trainer::write_video(path, frames, {.fps = 10, .codec = "ffv1"});
}

Tensor noise_clip(int64_t frames) {
  torch::manual_seed(5);
  return torch::randint(40, 200, {frames, 32, 48, 3}, torch::kUInt8);
}

}  // namespace

TEST_CASE("cosmos-eval judges clips frame by frame", "[eval]") {
  TempFolder folder;
  std::filesystem::create_directories(folder / "ours");
  std::filesystem::create_directories(folder / "theirs");
  const Tensor clip = noise_clip(18);  // more than are read at once
  write(folder / "ours/a.mkv", clip);
  write(folder / "theirs/a.mkv", clip + 20);
  const std::string out = (folder / "scores.json").string();
  const Answer done =
      run_program("cosmos-eval", "--clip " + (folder / "ours").string() + " --reference " +
                                     (folder / "theirs").string() +
                                     " --metrics psnr,ssim,canny,blur,iou,sampson --output " + out);
  INFO(done.text);
  REQUIRE(done.code == 0);
  const Json scores = modules::read_json(out)["clips"]["a.mkv"];
  CHECK(scores["psnr"]["frames"].size() == 18);
  CHECK(scores["psnr"]["mean"].get<double>() == Approx(22.1).margin(0.6));  // 20 log10(255 / 20)
  CHECK(scores["ssim"]["mean"].get<double>() > 0.9);
  CHECK(scores["canny"]["mean"].get<double>() > 0.97);  // brightness moves few edges
  CHECK(scores["blur"]["mean"].get<double>() > 0.9);
  CHECK(scores["iou"]["mean"].get<double>() < 1);
  CHECK(scores["sampson"]["frames"].size() == 17);
}

TEST_CASE("cosmos-eval compares with a part of a longer and larger clip", "[eval]") {
  TempFolder folder;
  const Tensor ramp = (torch::arange(24) * 4).view({1, 1, 24, 1});
  const Tensor clip = ((torch::arange(9) * 15).view({9, 1, 1, 1}) + ramp)  // brighter by frame
                          .expand({9, 16, 24, 3})
                          .to(torch::kUInt8)
                          .contiguous();
  write(folder / "long.mkv", clip.repeat_interleave(2, 1).repeat_interleave(2, 2));
  write(folder / "part.mkv", clip.slice(0, 3, 7).contiguous());
  const auto score = [&](const std::string& start) {
    return run_program("cosmos-eval", "--clip " + (folder / "part.mkv").string() + " --reference " +
                                          (folder / "long.mkv").string() +
                                          " --metrics psnr --reference-start " + start +
                                          " --output " + (folder / "scores.json").string());
  };
  const auto psnr_at = [&](const std::string& start) {
    const Answer answer = score(start);
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    return modules::read_json(folder / "scores.json")["clips"]["part.mkv"]["psnr"]["mean"]
        .get<double>();
  };
  CHECK(psnr_at("3") > psnr_at("2") + 6);
  CHECK(score("6").text.find("frames 6 to 9 are compared, it has 9") != std::string::npos);
}

TEST_CASE("cosmos-eval judges sets of clips by a network that is named", "[eval][fid]") {
  TempFolder folder;
  std::filesystem::create_directories(folder / "ours");
  std::filesystem::create_directories(folder / "theirs");
  const Tensor clip = noise_clip(9);
  write(folder / "ours/a.mkv", clip);
  write(folder / "ours/b.mkv", clip.flip(2));
  write(folder / "theirs/other.mkv", clip + 20);  // neither names nor numbers agree
  torch::jit::Module pictures("Pictures"), clips("Clips"), lpips("Lpips");
  pictures.define("def forward(self, x):\n  return x.mean([2, 3])\n");
  clips.define("def forward(self, x):\n  return x.mean([3, 4])[:, :, 0]\n");
  lpips.define("def forward(self, x, return_lpips: bool):\n  return x.mean([2, 3]) / 255\n");
  pictures.save((folder / "pictures.pt").string());
  clips.save((folder / "clips.pt").string());
  lpips.save((folder / "lpips.pt").string());
  const std::string theirs = " --reference " + (folder / "theirs").string();
  const std::string networks = " --fid-network " + (folder / "pictures.pt").string() +
                               " --fvd-network " + (folder / "clips.pt").string() +
                               " --fvd-frames 4 --output " + (folder / "scores.json").string();
  const Answer done = run_program("cosmos-eval", "--clip " + (folder / "ours").string() + theirs +
                                                     " --metrics fid,fvd" + networks);
  INFO(done.text);
  REQUIRE(done.code == 0);
  const Json sets = modules::read_json(folder / "scores.json")["sets"];
  CHECK(sets["fid"]["clip_samples"] == 18);
  CHECK(sets["fid"]["reference_samples"] == 9);
  CHECK(sets["fvd"]["clip_samples"] == 4);
  // Three channels, each 20 brighter; spreads are alike.
  CHECK(sets["fid"]["value"].get<double>() == Approx(1200).epsilon(0.02));
  CHECK(sets["fvd"]["value"].get<double>() == Approx(1200).epsilon(0.02));
  const Answer paired = run_program(
      "cosmos-eval", "--clip " + (folder / "ours/a.mkv").string() + " --reference " +
                         (folder / "theirs/other.mkv").string() +
                         " --metrics lpips --lpips-network " + (folder / "lpips.pt").string() +
                         " --output " + (folder / "scores.json").string());
  INFO(paired.text);
  REQUIRE(paired.code == 0);
  CHECK(
      modules::read_json(folder / "scores.json")["clips"]["a.mkv"]["lpips"]["mean"].get<double>() ==
      Approx(3 * 400 / (255.0 * 255.0)).epsilon(0.02));
  const Answer missing = run_program(
      "cosmos-eval", "--clip " + (folder / "ours").string() + theirs + " --metrics fid");
  CHECK(missing.code == 2);
  CHECK_THAT(missing.text, Catch::Matchers::Contains("--fid-network is missing"));
}

TEST_CASE("cosmos-eval refuses what cannot be compared in one line", "[eval]") {
  TempFolder folder;
  write(folder / "a.mkv", noise_clip(4));
  write(folder / "b.mkv", noise_clip(5));
  const auto refused = [&](const std::string& arguments, int code, const std::string& part) {
    const Answer answer = run_program("cosmos-eval", arguments);
    INFO(answer.text);
    CHECK(answer.code == code);
    CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 1);
    CHECK(answer.text.find(part) != std::string::npos);
  };
  const std::string a = "--clip " + (folder / "a.mkv").string();
  refused(a + " --reference " + (folder / "b.mkv").string(), 1, "its reference has 5");
  refused(a, 2, "--reference is missing");
  refused(a + " --metrics vmaf", 2, "vmaf is not known");
  refused("", 2, "--clip is missing");
}
