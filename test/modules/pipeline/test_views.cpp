// Clips of several cameras.

#include <catch2/catch.hpp>

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/registry.h"
#include "modules/pipeline/memory.h"
#include "modules/pipeline/views.h"
#include "modules/pipeline/world.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_multiview.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;

WorldRequest tiny_request() {
  WorldRequest request{.height = 16, .width = 32, .steps = 3, .guidance = 2};
  request.views = torch::tensor({0, 5, 1});
  request.video = Philox(1, Purpose::kNoise).uniform({3, 3, 1, 16, 32}) * 2 - 1;
  return request;
}

}  // namespace

TEST_CASE("cameras have names, and numbers beyond them", "[pipeline][multiview]") {
  CHECK(camera_index("rear", "--view") == 3);
  CHECK(camera_index("11", "--view") == 11);
  CHECK(camera_name(6) == "front_tele");
  CHECK(camera_name(7) == "7");
  CHECK_THROWS_WITH(camera_index("rear_rihgt", "--view"), Contains("did you mean rear_right?"));
  CHECK_THROWS_WITH(camera_index("", "--view"), Contains("--view"));
}

TEST_CASE("every view starts from its own frame, and is decoded for itself",
          "[pipeline][multiview]") {
  auto pipeline = test::tiny_multiview_pipeline();
  const WorldRequest request = tiny_request();
  const World world = generate_world(pipeline, request);
  CHECK(world.latents.sizes() == at::IntArrayRef({1, 4, 9, 2, 4}));
  CHECK(world.video.sizes() == at::IntArrayRef({1, 3, 27, 16, 32}));
  for (int64_t v = 0; v < 3; ++v) {
    const std::vector<int64_t> shape = {1, 4, 3, 2, 4};
    const GivenFrames given =
        encode_given(*pipeline.vae, request.video.narrow(0, v, 1), {.condition_frames = 1}, shape);
    const Tensor view = world.latents.narrow(2, 3 * v, 3);
    CHECK((view - given.latents).select(2, 0).abs().max().item<double>() < 1e-3);
    const torch::NoGradGuard no_grad;
    const Tensor decoded = pipeline.vae->decode(pipeline.vae->denormalize_latents(view));
    CHECK(torch::allclose(decoded.clamp(-1, 1), world.video.narrow(2, 9 * v, 9), 1e-4, 1e-4));
  }
  // Which camera a view is matters; an unseen start is made up.
  WorldRequest other = request;
  other.views = torch::tensor({0, 1, 5});
  CHECK_FALSE(generate_world(pipeline, other).latents.allclose(world.latents, 1e-3, 1e-3));
  other.video = Tensor();
  CHECK(generate_world(pipeline, other).video.sizes() == world.video.sizes());
}

TEST_CASE("a multi-view request is filled in and checked", "[pipeline][multiview]") {
  auto pipeline = test::tiny_multiview_pipeline();
  const WorldRequest full = with_defaults(pipeline, {.height = 16, .width = 32});
  CHECK(full.views.equal(torch::arange(7)));
  CHECK(full.num_frames == 9);
  CHECK(full.guidance == 2.0);
  CHECK(full.fps == 30.0);
  CHECK(full.steps == 35);
  CHECK(full.condition_time == -1.0);
  CHECK(predict_peak(pipeline, tiny_request()).activations > 0);
  const auto refused = [&](const std::function<void(WorldRequest&)>& change, const char* part) {
    WorldRequest request = tiny_request();
    change(request);
    CHECK_THROWS_WITH(generate_world(pipeline, request), Contains(part));
  };
  refused([](WorldRequest& r) { r.num_frames = 5; }, "views of 9 frames (state_t), got 5");
  refused([](WorldRequest& r) { r.views = torch::tensor({0, 7, 1}); }, "from 0 to 6");
  refused([](WorldRequest& r) { r.views = torch::tensor({0, 1}); }, "expected 2 views");
  refused(
      [](WorldRequest& r) {
        r.prompt_embeds = torch::zeros({1, 4, 8});
      },
      "equally many tokens for each view");
  pipeline.index.class_name = "Cosmos2VideoToWorldPipeline";
  const WorldFamily older = settings_of(pipeline, Compat::kNvidia);
  CHECK(older.fps == 10);
  CHECK(older.passes_fps);
}

TEST_CASE("a control of several cameras steers each view by its own video",
          "[pipeline][multiview][transfer]") {
  auto pipeline = test::tiny_multiview_transfer_pipeline();
  WorldRequest request = tiny_request();
  const Tensor control =
      torch::tensor({-0.8, 0.0, 0.8}).view({3, 1, 1, 1, 1}).expand({3, 3, 9, 16, 32});
  const auto with = [&](const Tensor& frames, double weight) {
    request.controls["hdmap"] = {.frames = frames_of(frames), .length = 9, .weight = weight};
    return generate_world(pipeline, request).latents;
  };
  const Tensor led = with(control, 1);
  CHECK(led.sizes() == at::IntArrayRef({1, 4, 9, 2, 4}));
  const Tensor free = with(control, 0);
  CHECK_FALSE(led.allclose(free, 1e-3, 1e-3));
  CHECK_FALSE(with(control.flip(0), 1).allclose(led));
  // A map over the frames of each view: nothing of it is nothing.
  request.controls["hdmap"].mask = frames_of(torch::zeros({3, 1, 9, 16, 32}));
  CHECK(generate_world(pipeline, request).latents.allclose(free, 1e-4, 1e-5));
  CHECK_THROWS_WITH(with(control.narrow(0, 0, 2), 1), Contains("controls.hdmap: expected [3, 3"));

  // Folders keep both classes.
  const test::TempFolder dir;
  save_world_pipeline(dir / "pipeline", pipeline);
  auto read = load_world_pipeline(dir / "pipeline");
  CHECK(read.index.components.at("controlnet").library == "cosmos");
  request.controls["hdmap"] = {.frames = frames_of(control), .length = 9};
  CHECK(generate_world(read, request).latents.equal(led));
  read.transformer = std::make_shared<CosmosTransformer3DModel>(test::tiny_base_config());
  CHECK_THROWS_WITH(add_control_net(read, "hdmap", dir / "pipeline" / "controlnet", {}),
                    Contains("does not go with a CosmosTransformer3DModel"));
}

TEST_CASE("one view takes no cameras", "[pipeline][multiview]") {
  auto pipeline = test::tiny_multiview_pipeline();
  Json config = pipeline.transformer->config().to_json();
  pipeline.transformer =
      std::dynamic_pointer_cast<CosmosTransformer3DModel>(make_model(config, "dit"));
  CHECK_THROWS_WITH(generate_world(pipeline, tiny_request()), Contains("has one view"));
}

}  // namespace cosmos::modules
