// Control of a generation: weights, maps, several nets, chunks, what is refused.

#include <catch2/catch.hpp>
#include <filesystem>

#include "modules/pipeline/world.h"
#include "test/support/tiny_transfer.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;
using test::tiny_net;

Tensor pixels(uint64_t seed, int64_t frames) {
  return Philox(seed, Purpose::kNoise).uniform({1, 3, frames, 16, 32}) * 2 - 1;
}

WorldRequest tiny_request(int64_t frames, std::vector<std::string> controls) {
  WorldRequest request{.height = 16, .width = 32, .steps = 2, .guidance = 2, .chunk_frames = 9};
  for (const auto& name : controls)
    request.controls[name] = {.frames = frames_of(pixels(7, frames)), .length = frames};
  return request;
}

}  // namespace

TEST_CASE("a map over pixels becomes one over tokens, the first frame by itself", "[pipeline]") {
  // Frame t has the value t: 9 frames to 3 latent ones, the last two from frames 1-4 and 5-8.
  const Tensor mask =
      torch::arange(9, torch::kFloat32).view({1, 1, 9, 1, 1}).expand({1, 1, 9, 8, 4});
  const Tensor map = token_map(mask, {.frames = 3, .rows = 2, .columns = 1}).view({3, 2});
  CHECK(map[0].equal(torch::zeros({2})));
  CHECK(map.select(1, 0).allclose(torch::tensor({0.0f, 2.5f, 6.5f})));
  // Rows 0-3 and 4-7 of a mask that is 1 above and 0 below.
  Tensor half = torch::zeros({1, 1, 1, 8, 4});
  half.narrow(3, 0, 4).fill_(1);
  CHECK(token_map(half, {.frames = 1, .rows = 2, .columns = 1})
            .flatten()
            .equal(torch::tensor({1.0f, 0.0f})));
}

TEST_CASE("numbers stay as they are, maps are divided by their sum where it exceeds one",
          "[pipeline]") {
  std::vector<ControlBranch> numbers = {{.weight = 0.8}, {.weight = 0.9}};
  normalize_weights(numbers);
  CHECK(numbers[0].weight == 0.8);
  CHECK_FALSE(numbers[0].map.defined());
  std::vector<ControlBranch> maps = {
      {.weight = 1, .map = torch::tensor({0.2f, 1.0f, 0.5f}).view({1, 3, 1})}, {.weight = 0.6}};
  normalize_weights(maps);
  CHECK(maps[0].map.flatten().allclose(torch::tensor({0.2f, 1 / 1.6f, 0.5f / 1.1f})));
  CHECK(maps[1].map.flatten().allclose(torch::tensor({0.6f, 0.6f / 1.6f, 0.6f / 1.1f})));
  normalize_weights(numbers, /*numbers_too=*/true);  // Transfer1
  CHECK(numbers[0].map.item<double>() == Approx(0.8 / 1.7));
}

TEST_CASE("residuals of several nets add up with their weights", "[pipeline]") {
  const torch::NoGradGuard no_grad;
  const Tensor latents = Philox(1, Purpose::kNoise).normal({1, 4, 2, 2, 4});
  const ControlNetInputs inputs{.latents = latents,
                                .timestep = torch::tensor({0.3f}),
                                .encoder_hidden_states = torch::ones({1, 1, 8}),
                                .condition_mask = torch::zeros({1, 1, 2, 2, 4})};
  const auto one = [&](double gain, double weight, Tensor map = {}) {
    return ControlBranch{
        .net = tiny_net(gain), .latents = latents * gain, .weight = weight, .map = map};
  };
  const Tensors a = control_residuals({one(1, 1)}, inputs);
  const Tensors b = control_residuals({one(-0.5, 1)}, inputs);
  const Tensors both = control_residuals({one(1, 0.7), one(-0.5, 2)}, inputs);
  REQUIRE(both.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) CHECK(both[i].allclose(0.7 * a[i] + 2 * b[i], 1e-4, 1e-5));
  Tensor map = torch::zeros({1, 4, 1});
  map[0][2] = 1;
  const Tensors masked = control_residuals({one(1, 1, map)}, inputs);
  CHECK(masked[1].allclose(a[1] * map));
  CHECK(control_residuals({one(1, 0)}, inputs).empty());  // nothing is computed for weight 0
}

TEST_CASE("a short video goes on with its last frame, or backwards", "[pipeline]") {
  const Tensor video = torch::arange(4, torch::kFloat32).view({1, 1, 4, 1, 1});
  const auto read = [&](int64_t length, int64_t first, int64_t count, Continue how) {
    return frames_beyond(frames_of(video), length, first, count, how).flatten();
  };
  CHECK(read(4, 2, 5, Continue::kLastFrame).equal(torch::tensor({2.f, 3.f, 3.f, 3.f, 3.f})));
  CHECK(
      read(4, 2, 7, Continue::kReflect).equal(torch::tensor({2.f, 3.f, 2.f, 1.f, 0.f, 1.f, 2.f})));
  CHECK(read(1, 0, 3, Continue::kReflect).equal(torch::zeros({3})));
  CHECK(read(4, 1, 2, Continue::kReflect).equal(torch::tensor({1.f, 2.f})));
}

TEST_CASE("a controlled clip follows its controls", "[pipeline]") {
  auto pipeline = test::tiny_transfer_pipeline();
  const World both = generate_world(pipeline, tiny_request(9, {"edge", "depth"}));
  CHECK(both.latents.sizes() == at::IntArrayRef({1, 4, 3, 2, 4}));
  CHECK(both.video.sizes() == at::IntArrayRef({1, 3, 9, 16, 32}));
  WorldRequest request = tiny_request(9, {"edge", "depth"});
  request.controls["depth"].weight = 0;
  const World edge = generate_world(pipeline, tiny_request(9, {"edge"}));
  CHECK(generate_world(pipeline, request).latents.equal(edge.latents));
  CHECK_FALSE(both.latents.allclose(edge.latents));
  // A mask of ones is no mask, as long as the sum of the weights is at most one.
  request = tiny_request(9, {"edge"});
  request.controls["edge"].mask = frames_of(torch::ones({1, 1, 9, 16, 32}));
  CHECK(generate_world(pipeline, request).latents.allclose(edge.latents, 1e-4, 1e-5));
  request.control_scale = {0};
  const Tensor none = generate_world(pipeline, request).latents;
  CHECK_FALSE(none.allclose(edge.latents));
  // One channel counts for three.
  request = tiny_request(9, {"edge"});
  const Tensor grey = pixels(7, 9).narrow(1, 0, 1);
  request.controls["edge"].frames = frames_of(grey);
  const Tensor one = generate_world(pipeline, request).latents;
  request.controls["edge"].frames = frames_of(grey.expand({1, 3, 9, 16, 32}).clone());
  CHECK(generate_world(pipeline, request).latents.equal(one));
}

TEST_CASE("a long clip comes chunk by chunk, and reads its controls so", "[pipeline]") {
  auto pipeline = test::tiny_transfer_pipeline();
  WorldRequest request = tiny_request(22, {"edge"});
  const Tensor video = pixels(7, 22);
  int64_t most = 0;
  request.controls["edge"].frames = [&](int64_t first, int64_t count) {
    most = std::max(most, count);
    return video.narrow(2, first, count);
  };
  std::vector<int64_t> frames, latents;
  Tensors parts;
  generate_world(pipeline, request, [&](const World& part) {
    frames.push_back(part.video.size(2));
    latents.push_back(part.latents.size(2));
    parts.push_back(part.video);
  });
  CHECK(frames == std::vector<int64_t>{9, 8, 5});
  CHECK(latents == std::vector<int64_t>{3, 2, 1});
  CHECK(most == 9);
  request.num_frames = 9;
  CHECK(generate_world(pipeline, request).video.equal(parts[0]));
}

TEST_CASE("controls that do not fit are refused by name", "[pipeline]") {
  auto pipeline = test::tiny_transfer_pipeline();
  const auto refused = [&](WorldRequest request) { return generate_world(pipeline, request); };
  CHECK_THROWS_WITH(refused(tiny_request(9, {})), Contains("needs a control video"));
  CHECK_THROWS_WITH(refused(tiny_request(9, {"seg"})),
                    Contains("no control net for \"seg\"") && Contains("depth, edge"));
  WorldRequest request = tiny_request(9, {"edge"});
  request.controls["edge"].frames = frames_of(torch::zeros({1, 3, 9, 16, 16}));
  CHECK_THROWS_WITH(refused(request), Contains("controls.edge: expected [1, 3 or 1, T, 16, 32]"));
  request = tiny_request(9, {"edge"});
  request.overlap_frames = 9;
  request.num_frames = 9;
  request.controls["edge"].length = 30;
  CHECK_NOTHROW(with_defaults(pipeline, request));  // one chunk overlaps nothing
  request.num_frames = 30;
  CHECK_THROWS_WITH(with_defaults(pipeline, request), Contains("overlap: expected 0 to 8"));
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  CHECK_THROWS_WITH(refused(tiny_request(9, {"edge"})), Contains("takes no control videos"));
  pipeline.index.class_name = "Cosmos2_5_TransferPipelin";
  CHECK_THROWS_WITH(refused(tiny_request(9, {})), Contains("did you mean"));
}

TEST_CASE("a Transfer pipeline folder comes back with its control nets", "[pipeline]") {
  auto pipeline = test::tiny_transfer_pipeline();
  const auto dir = std::filesystem::temp_directory_path() / "cosmos-test-transfer";
  for (const bool several : {true, false}) {
    std::filesystem::remove_all(dir);
    if (!several) pipeline.control_nets.erase("depth");
    save_world_pipeline(dir, pipeline);
    auto loaded = load_world_pipeline(dir);
    CHECK(loaded.control_nets.size() == (several ? 2u : 1u));
    CHECK(loaded.control_nets.count(several ? "depth" : "") == 1);
    CHECK(generate_world(loaded, tiny_request(9, {"edge"}))
              .latents.equal(generate_world(pipeline, tiny_request(9, {"edge"})).latents));
  }
  std::filesystem::remove_all(dir / "controlnet");
  CHECK_THROWS_WITH(load_world_pipeline(dir), Contains("controlnet"));
  std::filesystem::remove_all(dir);
}

}  // namespace cosmos::modules
