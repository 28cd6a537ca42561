#include <catch2/catch.hpp>
#include <filesystem>

#include "modules/diffusion/conditioning.h"
#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/registry.h"
#include "modules/pipeline/world.h"
#include "modules/registry.h"
#include "test/support/tiny_dit.h"
#include "test/support/tiny_transfer.h"

namespace cosmos::modules {
namespace {

const Json kDit = test::tiny_dit_json();
const Json kVae = test::tiny_vae_config();

WorldPipeline tiny_pipeline() {
  register_builtin_models();
  torch::manual_seed(3);
  WorldPipeline pipeline;
  pipeline.scheduler = scheduler_json(predict25_scheduler(false));
  pipeline.transformer =
      std::dynamic_pointer_cast<CosmosTransformer3DModel>(make_model(kDit, "dit"));
  pipeline.vae = std::dynamic_pointer_cast<VideoTokenizer>(make_model(kVae, "vae"));
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  pipeline.index.components = {{"transformer", {"diffusers", "CosmosTransformer3DModel"}},
                               {"vae", {"diffusers", "AutoencoderKLCosmos"}},
                               {"scheduler", {"diffusers", "UniPCMultistepScheduler"}},
                               {"text_encoder", {}}};
  return pipeline;
}

WorldRequest tiny_request() {
  WorldRequest request{.height = 16, .width = 32, .num_frames = 9, .steps = 3, .guidance = 2};
  request.video = Philox(1, Purpose::kNoise).uniform({1, 3, 1, 16, 32}) * 2 - 1;
  return request;
}

double largest(const Tensor& x) {
  return x.abs().max().item<double>();
}

}  // namespace

TEST_CASE("denoising ends in the clean latents when the network knows them", "[pipeline]") {
  const Tensor x0 = Philox(5, Purpose::kNoise).normal({1, 4, 3, 2, 2}) * 0.5;
  const GivenFrames given{.latents = x0, .indicator = condition_indicator({1}, 3)};
  const std::pair<Formulation, Json> cases[] = {
      {Formulation::kRectifiedFlow, scheduler_json(predict25_scheduler(true))},
      {Formulation::kPredict2, scheduler_json(Res2abConfig{})},
      {Formulation::kEdm, scheduler_json(EdmEulerConfig{})}};
  for (const auto& one : cases) {
    const auto formulation = one.first;
    const auto& config = one.second;
    INFO(formulation_name(formulation));
    const auto options = published_options(formulation);
    const auto sampler = make_sampler(config, 12);
    // The network inverts its own inputs: x and s are what the loop is at.
    const Network network = [&](const Tensor& input, const Tensor& time, const Tensor& mask,
                                const Tensor& text) {
      CHECK(mask.size(1) == 1);
      CHECK(input.sizes() == x0.sizes());
      const Tensor sigma = torch::tensor({sampler->sigmas()[sampler->position()]}, torch::kFloat64);
      const Tensor s = broadcast_sigma(sigma, input);
      const double d = options.sigma_data;
      if (formulation == Formulation::kRectifiedFlow) return (input - x0) / s;
      if (formulation == Formulation::kPredict2) return (input * (1 + s) - x0 * (1 + s)) / s;
      const Tensor norm = (s * s + d * d).sqrt();
      return (x0 - d * d / (norm * norm) * input * norm) * norm / (s * d);
    };
    const Tensor noise = Philox(6, Purpose::kNoise).normal(x0.sizes());
    const Tensor x = denoise(network, *sampler, noise, given, torch::zeros({1, 1, 8}), {},
                             {.diffusion = options});
    CHECK(largest((x - x0).slice(2, 1)) < 2e-3);
    // A flow's given frames start as pure noise, but its first level is not quite 1.
    CHECK(largest(x - x0) < 2e-2);
  }
}

TEST_CASE("a world starts with the given frame and follows from its seed", "[pipeline]") {
  auto pipeline = tiny_pipeline();
  const WorldRequest request = tiny_request();
  const World world = generate_world(pipeline, request);
  CHECK(world.latents.sizes() == at::IntArrayRef({1, 4, 3, 2, 4}));
  CHECK(world.video.sizes() == at::IntArrayRef({1, 3, 9, 16, 32}));
  const GivenFrames given =
      encode_given(*pipeline.vae, request.video, {.condition_frames = 1}, world.latents.sizes());
  CHECK(largest((world.latents - given.latents).select(2, 0)) < 1e-4);
  CHECK(generate_world(pipeline, request).latents.equal(world.latents));
  WorldRequest other = request;
  other.seed = 1;
  CHECK_FALSE(generate_world(pipeline, other).latents.allclose(world.latents));
  other = request;
  other.compat = Compat::kNvidia;
  CHECK_FALSE(generate_world(pipeline, other).latents.allclose(world.latents));
}

TEST_CASE("a distilled pipeline takes four steps and no guidance", "[pipeline]") {
  auto pipeline = tiny_pipeline();
  pipeline.scheduler = scheduler_json(DistilledConfig{});
  WorldRequest request = tiny_request();
  request.steps = std::nullopt;
  request.guidance = std::nullopt;
  const WorldRequest full = with_defaults(pipeline, request);
  CHECK(full.steps == 4);
  CHECK(full.guidance == 0.0);
  const World world = generate_world(pipeline, request);
  const GivenFrames given =
      encode_given(*pipeline.vae, request.video, {.condition_frames = 1}, world.latents.sizes());
  CHECK(largest((world.latents - given.latents).select(2, 0)) < 1e-5);
  // NVIDIA's times are the levels themselves here; its noise is NumPy's.
  request.latents = Philox(6, Purpose::kNoise).normal(world.latents.sizes());
  const Tensor ours = generate_world(pipeline, request).latents;
  request.compat = Compat::kNvidia;
  CHECK(generate_world(pipeline, request).latents.allclose(ours, 1e-4, 1e-5));
  request.guidance = 3;
  CHECK_THROWS_WITH(generate_world(pipeline, request), Catch::Contains("takes none, got 3"));
  pipeline.index.class_name = "Cosmos2VideoToWorldPipeline";
  CHECK_THROWS_WITH(generate_world(pipeline, request), Catch::Contains("is for Predict2.5"));
}

TEST_CASE("a request that the models cannot serve says what would do", "[pipeline]") {
  auto pipeline = tiny_pipeline();
  const auto with = [&](auto change) {
    WorldRequest request = tiny_request();
    change(request);
    return generate_world(pipeline, request);
  };
  CHECK_THROWS_WITH(with([](auto& r) { r.height = 20; }),
                    "height: expected a multiple of 16, got 20 (nearest: 16)");
  CHECK_THROWS_WITH(with([](auto& r) { r.num_frames = 11; }),
                    "num-frames: expected 1 + a multiple of 4, got 11 (nearest below: 9)");
  CHECK_THROWS_WITH(with([](auto& r) { r.condition_frames = 2; }),
                    Catch::Contains("need 5 frames, the video has 1"));
  CHECK_THROWS_WITH(with([](auto& r) {
                      r.prompt_embeds = torch::zeros({1, 2, 9});
                    }),
                    "prompt_embeds: expected [1, tokens, 8], got [1, 2, 9]");
}

TEST_CASE("a pipeline folder comes back as it was written", "[pipeline]") {
  auto pipeline = tiny_pipeline();
  const auto dir = std::filesystem::temp_directory_path() / "cosmos-test-pipeline";
  std::filesystem::remove_all(dir);
  pipeline.scheduler["some_later_setting"] = 3;
  save_world_pipeline(dir, pipeline);
  auto loaded = load_world_pipeline(dir);
  CHECK(loaded.scheduler == pipeline.scheduler);
  CHECK(loaded.index.components.at("text_encoder").class_name.empty());
  CHECK(generate_world(loaded, tiny_request())
            .latents.equal(generate_world(pipeline, tiny_request()).latents));
  std::filesystem::remove_all(dir);
}

}  // namespace cosmos::modules
