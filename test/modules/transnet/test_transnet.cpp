// TransNetV2 against what the public class gave (test/reference/transnet_golden.py); its windows.

#include <catch2/catch.hpp>

#include "modules/hub/model_weights.h"
#include "modules/hub/pytorch_file.h"
#include "modules/transnet/shots.h"
#include "modules/transnet/transnet.h"
#include "test/support/golden_model.h"
#include "test/support/temp_folder.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;

/// As transnet.py: statistics that are not 0 and 1.
void fill_statistics(torch::nn::Module& model) {
  std::map<std::string, Tensor> buffers;
  for (const auto& item : model.named_buffers()) buffers[item.key()] = item.value();
  int64_t k = 0;
  for (auto& [name, value] : buffers) {
    const Tensor wave = test::wave(value.sizes(), k++);
    if (name.find("running_mean") != std::string::npos) value.copy_(0.1 * wave);
    if (name.find("running_var") != std::string::npos) value.copy_(1 + 0.5 * wave);
  }
}

std::shared_ptr<TransNetV2> tiny_network() {
  torch::manual_seed(1);
  auto model = std::make_shared<TransNetV2>(Json{{"F", 1}, {"S", 2}, {"D", 3}});
  fill_statistics(*model);
  model->eval();
  return model;
}

/// Frame n of a video of `count`, one number a frame.
std::vector<float> scores_of(int64_t count, std::vector<Tensor>& windows) {
  ShotScorer scorer([&](const Tensor& window) {
    windows.push_back(window.clone());
    return window.select(1, 0).to(torch::kFloat32);
  });
  for (int64_t n = 0; n < count; ++n) scorer.add(torch::full({1}, n, torch::kLong));
  scorer.finish();
  return scorer.scores();
}

}  // namespace

TEST_CASE("TransNetV2 gives what the public class gives", "[transnet][golden]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/transnet.safetensors");
  const Json tiny = Json::parse(golden.metadata().at("tiny"));
  TransNetV2 model(tiny["config"]);
  fill_statistics(model);
  model.eval();
  const Tensor wave = test::wave(tiny["shape"].get<std::vector<int64_t>>(), 0);
  test::check_golden(model, golden, "tiny", {{"inputs", (128 + 127 * wave).to(torch::kUInt8)}});
}

TEST_CASE("windows give every frame its own score, with copies at both ends", "[transnet]") {
  for (const int64_t count : {1, 49, 50, 51, 100, 137}) {
    INFO(count << " frames");
    std::vector<Tensor> windows;
    const std::vector<float> scores = scores_of(count, windows);
    REQUIRE(static_cast<int64_t>(scores.size()) == count);
    for (int64_t n = 0; n < count; ++n) CHECK(scores[static_cast<std::size_t>(n)] == n);
    CHECK(static_cast<int64_t>(windows.size()) == (count + 49) / 50);
    CHECK(windows.front().slice(0, 0, 26).eq(0).all().item<bool>());
    const int64_t copies = 25 + (50 - count % 50) % 50;
    CHECK(windows.back().slice(0, 100 - copies).eq(count - 1).all().item<bool>());
    if (count > 1)
      CHECK(windows.back()[98 - copies].item<int64_t>() == std::max<int64_t>(count - 2, 0));
  }
}

TEST_CASE("a stream gives the scores of whole windows", "[transnet]") {
  torch::NoGradGuard no_grad;
  const auto model = tiny_network();
  const Tensor video = torch::randint(0, 256, {60, 27, 48, 3}, torch::kUInt8);
  const auto score = [&](const Tensor& window) {
    return torch::sigmoid(model->forward(window.unsqueeze(0)).one_hot.flatten());
  };
  ShotScorer scorer(score);
  for (int64_t n = 0; n < 60; ++n) scorer.add(video[n]);
  scorer.finish();
  const Tensor padded = torch::cat({video.slice(0, 0, 1).expand({25, 27, 48, 3}), video,
                                    video.slice(0, 59).expand({65, 27, 48, 3})});
  const Tensor whole = torch::cat({score(padded.slice(0, 0, 100)).slice(0, 25, 75),
                                   score(padded.slice(0, 50, 150)).slice(0, 25, 35)});
  CHECK(torch::tensor(scorer.scores()).allclose(whole, 0, 1e-6));
  CHECK(whole.std().item<double>() > 1e-4);
}

TEST_CASE("shots are what lies between transitions", "[transnet]") {
  const auto shots = [](std::vector<float> scores) { return shots_of(scores, 0.5); };
  using Ranges = std::vector<FrameRange>;
  CHECK(shots({}).empty());
  CHECK(shots({0, 0, 0}) == Ranges{{0, 3}});
  CHECK(shots({0, 0, 1, 0, 0}) == Ranges{{0, 3}, {3, 5}});
  CHECK(shots({0, 1, 1, 1, 0}) == Ranges{{0, 2}, {4, 5}});
  CHECK(shots({1, 0, 0, 0.5f, 1}) == Ranges{{1, 5}});
  CHECK(shots({1, 1}) == Ranges{{0, 2}});
}

TEST_CASE("weights of a file tell the size; others are refused in one line", "[transnet]") {
  torch::NoGradGuard no_grad;
  const test::TempFolder folder;
  const auto model = tiny_network();
  save_pytorch_file(folder / "tiny.pth", lazy_tensors(file_tensors(*model)));
  const auto loaded = load_transnet(folder / "tiny.pth");
  const Tensor frames = torch::randint(0, 256, {1, 5, 27, 48, 3}, torch::kUInt8);
  CHECK(loaded->forward(frames).many_hot.equal(model->forward(frames).many_hot));
  CHECK_THROWS_WITH(loaded->forward(frames.slice(2, 1)), Contains("expected uint8 [B, T, 27, 48"));

  save_pytorch_file(folder / "other.pth", lazy_tensors({{"w", torch::ones({2})}}));
  CHECK_THROWS_WITH(load_transnet(folder / "other.pth"),
                    Contains("other.pth: expected TransNetV2's weights"));
  CHECK_THROWS_WITH(TransNetV2(Json{{"L", 2}}, "config.json"), Contains("config.json: L"));
}

}  // namespace cosmos::modules
