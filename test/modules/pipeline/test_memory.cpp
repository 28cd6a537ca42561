// What is predicted of a generation's memory is what it takes.

#include <catch2/catch.hpp>

#include "modules/pipeline/memory.h"
#include "ops/core/peak_memory.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_transfer.h"

using namespace cosmos;
using namespace cosmos::modules;

TEST_CASE("the predicted peak is the measured one", "[pipeline][memory]") {
  auto pipeline = test::tiny_transfer_pipeline();
  const auto check = [&](int64_t height, int64_t width, int64_t chunk, bool masked) {
    WorldRequest request{
        .height = height, .width = width, .num_frames = 9, .steps = 3, .guidance = 2};
    request.chunk_frames = chunk;
    for (const char* name : {"edge", "depth"})
      request.controls[name] = {.frames = frames_of(torch::rand({1, 3, 9, height, width})),
                                .length = 9};
    if (masked) request.controls["edge"].mask = frames_of(torch::rand({1, 1, 9, height, width}));
    request.prompt_embeds = torch::randn({1, 5, 8});
    const PeakMemory predicted = predict_peak(pipeline, request);
    const int64_t measured =
        peak_bytes([&] { generate_world(pipeline, request, [](const World&) {}); });
    INFO(height << " x " << width << ", chunks of " << chunk << ": " << measured);
    CHECK(static_cast<double>(predicted.activations) ==
          Approx(static_cast<double>(measured)).epsilon(0.1));
    return predicted;
  };
  const PeakMemory small = check(64, 64, 9, false), large = check(96, 128, 9, true);
  check(64, 96, 5, false);
  CHECK(large.activations > 2 * small.activations);
  int64_t weights = 0;
  for (const auto& weight : pipeline.transformer->parameters()) weights += weight.nbytes();
  CHECK(small.weights > weights);
  CHECK(small.weights == large.weights);
}

TEST_CASE("a long clip takes no more memory than a short one", "[pipeline][memory]") {
  auto pipeline = test::tiny_transfer_pipeline();
  const auto peak = [&](int64_t frames) {
    WorldRequest request{.height = 32, .width = 48, .num_frames = frames, .steps = 2};
    request.chunk_frames = 9;
    const FrameSource grey = [](int64_t, int64_t count) {  // made when they are asked for
      return torch::zeros({1, 3, count, 32, 48});
    };
    request.controls["edge"] = {.frames = grey, .length = frames};
    int64_t handed_over = 0;
    const int64_t bytes = peak_bytes([&] {
      generate_world(pipeline, request,
                     [&](const World& part) { handed_over += part.video.size(2); });
    });
    CHECK(handed_over == frames);
    return static_cast<double>(bytes);
  };
  CHECK(peak(300) <= 1.01 * peak(25));
}

TEST_CASE("weights in the files' pages change no clip, and are predicted as copies are",
          "[pipeline][memory]") {
  const test::TempFolder dir;
  save_world_pipeline(dir / "pipeline", test::tiny_transfer_pipeline());
  WorldPipeline copied = load_world_pipeline(dir / "pipeline");
  WorldPipeline mapped = load_world_pipeline(dir / "pipeline", {.mapped = true});
  WorldRequest request{.height = 32, .width = 48, .num_frames = 5, .steps = 2, .guidance = 2};
  request.controls["edge"] = {.frames = frames_of(torch::rand({1, 3, 5, 32, 48})), .length = 5};
  request.prompt_embeds = torch::randn({1, 5, 8});
  const World expected = generate_world(copied, request);
  const World world = generate_world(mapped, request);
  CHECK(world.latents.equal(expected.latents));
  CHECK(world.video.equal(expected.video));
  CHECK(predict_peak(mapped, request).weights == predict_peak(copied, request).weights);
}
