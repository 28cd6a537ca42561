// Transfer1: the distilled network's one step, and NVIDIA's sampler.

#include <catch2/catch.hpp>

#include "modules/pipeline/world.h"
#include "modules/transfer/transfer1.h"
#include "test/support/tiny_transfer.h"

using namespace cosmos;
using namespace cosmos::modules;

namespace {

WorldPipeline tiny_transfer1_pipeline() {
  WorldPipeline pipeline = test::tiny_transfer_pipeline();
  DitConfig base = test::tiny_base_config();
  base.extra_pos_embed_type = "learnable";
  pipeline.transformer = std::make_shared<CosmosTransformer3DModel>(base);
  test::fill(*pipeline.transformer);
  Transfer1Config config;
  config.num_control_blocks = 2;
  config.in_channels = base.in_channels;
  config.hint_channels = 6;
  config.num_attention_heads = base.num_attention_heads;
  config.attention_head_dim = base.attention_head_dim;
  config.mlp_ratio = base.mlp_ratio;
  config.text_embed_dim = base.text_embed_dim;
  config.adaln_lora_dim = base.adaln_lora_dim;
  config.max_size = base.max_size;
  config.hint_widths = {6, 10};
  auto net = std::make_shared<CosmosTransfer1ControlNetModel>(config);
  test::fill(*net);
  const torch::NoGradGuard no_grad;
  for (auto& item : net->named_parameters())  // what the control says is to be seen
    if (item.key().find("zero_blocks") != std::string::npos ||
        item.key().find("hint_embed") != std::string::npos)
      item.value().mul_(20);
  pipeline.control_nets = {{"edge", net}};
  pipeline.index.class_name = "CosmosTransfer1Pipeline";
  pipeline.scheduler = scheduler_json(OneStepConfig{});
  return pipeline;
}

WorldRequest tiny_request() {
  torch::manual_seed(4);
  WorldRequest request{.height = 16, .width = 32, .num_frames = 9};
  request.controls["edge"] = {.frames = frames_of(torch::rand({1, 3, 9, 16, 32})), .length = 9};
  request.prompt_embeds = torch::randn({1, 5, 8});
  request.latents = torch::randn({1, 4, 3, 2, 4});
  return request;
}

double relative(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace

TEST_CASE("a distilled Transfer1 network makes its clip in one call", "[pipeline][transfer]") {
  WorldPipeline pipeline = tiny_transfer1_pipeline();
  WorldRequest request = tiny_request();
  CHECK(with_defaults(pipeline, request).steps == 1);
  CHECK(with_defaults(pipeline, request).guidance == 0.0);
  int64_t calls = 0;
  request.progress = [&](int64_t, int64_t all) { calls = all; };
  const Tensor clip = generate_world(pipeline, request).latents;
  CHECK(calls == 1);

  // Euler's steps from 80 to 80, and from there to 0, are the clean latents of the network at 80.
  WorldPipeline euler = pipeline;
  euler.scheduler = scheduler_json(EdmEulerConfig{.sigma_min = 80, .final_sigmas_type = "zero"});
  WorldRequest two = request;
  two.steps = 2;
  two.guidance = 0;
  CHECK(relative(clip, generate_world(euler, two).latents) < 1e-4);

  WorldRequest other = request;
  other.controls["edge"].frames = frames_of(torch::zeros({1, 3, 9, 16, 32}));
  CHECK(relative(clip, generate_world(pipeline, other).latents) > 1e-4);
  request.guidance = 3;
  CHECK_THROWS_WITH(generate_world(pipeline, request), Catch::Contains("takes none, got 3"));
  request.guidance = 0;
  request.steps = 4;
  CHECK_THROWS_WITH(generate_world(pipeline, request), Catch::Contains("takes one step, got 4"));
  pipeline.index.class_name = "Cosmos2_5_TransferPipeline";
  CHECK_THROWS_WITH(generate_world(pipeline, request), Catch::Contains("is for Transfer1"));
}

TEST_CASE("NVIDIA's sampler of Transfer1 solves what Euler's steps do", "[pipeline][transfer]") {
  WorldPipeline pipeline = tiny_transfer1_pipeline();
  pipeline.scheduler = scheduler_json(EdmEulerConfig{.final_sigmas_type = "sigma_min"});
  WorldRequest request = tiny_request();
  request.guidance = 0;
  request.fps = 24;
  request.steps = 200;
  const Tensor fine = generate_world(pipeline, request).latents;
  request.steps = 35;
  const double euler = relative(generate_world(pipeline, request).latents, fine);
  request.compat = Compat::kNvidia;
  const double second_order = relative(generate_world(pipeline, request).latents, fine);
  INFO("from 200 steps: Euler's 35 " << euler << ", NVIDIA's " << second_order);
  CHECK(second_order < 0.05);
  CHECK(second_order < euler);
}
