// Offloaded models compute what whole ones do, bit for bit, and hold a block or two.

#include <catch2/catch.hpp>

#include "modules/hub/block_offload.h"
#include "modules/hub/model_weights.h"
#include "modules/lora/files.h"
#include "modules/lora/lora.h"
#include "modules/pipeline/memory.h"
#include "ops/core/peak_memory.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_transfer.h"

using namespace cosmos;
using namespace cosmos::modules;
using Catch::Matchers::Contains;

namespace {

// 8 blocks of 0.7 MB.
DitConfig config() {
  DitConfig config = test::tiny_base_config();
  config.attention_head_dim = 48;
  config.num_layers = 8;
  config.adaln_lora_dim = 32;
  return config;
}

TensorMap dit_inputs() {
  torch::manual_seed(2);
  return {{"hidden_states", torch::randn({1, 4, 2, 4, 4})},
          {"condition_mask", torch::zeros({1, 1, 2, 4, 4})},
          {"timestep", torch::tensor({0.3f})},
          {"encoder_hidden_states", torch::randn({1, 3, 8})}};
}

TensorMap cast(TensorMap tensors, torch::Dtype dtype) {
  for (auto& [name, tensor] : tensors)
    if (tensor.is_floating_point() && name != "timestep") tensor = tensor.to(dtype);
  return tensors;
}

}  // namespace

TEST_CASE("an offloaded transformer is the whole one, bit for bit", "[offload]") {
  register_builtin_models();
  const test::TempFolder dir;
  CosmosTransformer3DModel saved(config());
  test::fill(saved);
  save_model(dir / "model", saved);
  const torch::NoGradGuard no_grad;
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    const auto whole = load_model(dir / "model", {.dtype = dtype});
    const auto parts = load_model(dir / "model", {.dtype = dtype, .offload = true});
    const TensorMap inputs = cast(dit_inputs(), dtype);
    const Tensor expected = whole->run("forward", inputs).at("sample");
    for (int call = 0; call < 3; ++call)  // the second knows what comes next
      CHECK(parts->run("forward", inputs).at("sample").equal(expected));
  }
}

TEST_CASE("an offloaded model holds a block and the next", "[offload]") {
  register_builtin_models();
  const test::TempFolder dir;
  CosmosTransformer3DModel saved(config());
  test::fill(saved);
  save_model(dir / "model", saved);
  const torch::NoGradGuard no_grad;
  int64_t all = 0, block = 0;
  for (const auto& item : saved.named_parameters()) {
    all += static_cast<int64_t>(item.value().nbytes()) / 2;
    if (item.key().find("transformer_blocks.0.") == 0)
      block += static_cast<int64_t>(item.value().nbytes()) / 2;
  }
  REQUIRE(all > 6 * block);
  const TensorMap inputs = cast(dit_inputs(), torch::kBFloat16);
  const auto whole = load_model(dir / "model", {.dtype = torch::kBFloat16});
  const auto parts = load_model(dir / "model", {.dtype = torch::kBFloat16, .offload = true});
  const auto peak = [&](Model& model) {
    model.run("forward", inputs);
    return peak_bytes([&] { model.run("forward", inputs); });
  };
  const int64_t activations = peak(*whole), converted = peak(*parts);
  INFO("block " << block << ", activations " << activations << ", peak " << converted);
  CHECK(converted >= block);
  CHECK(converted <= 2 * block + activations + all / 20);
  // In the file's own dtype there is nothing to hold.
  const auto mapped = load_model(dir / "model", {.offload = true});
  CHECK(peak_bytes([&] { mapped->run("forward", dit_inputs()); }) < block);
}

TEST_CASE("adapters stay beside offloaded weights", "[offload][lora]") {
  register_builtin_models();
  const test::TempFolder dir;
  CosmosTransformer3DModel saved(config());
  test::fill(saved);
  save_model(dir / "model", saved);
  auto whole = load_model(dir / "model");
  apply_lora(*whole, {.rank = 2, .target_modules = {"to_q", "to_v"}}, 3);
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : whole->named_parameters())
      if (item.key().find("lora_B") != std::string::npos) item.value().fill_(0.1);
  }
  save_peft_adapter(dir / "adapter", *whole);
  const auto parts = load_model(dir / "model", {.offload = true});
  load_adapter(*parts, (dir / "adapter").string());
  const torch::NoGradGuard no_grad;
  whole->eval();
  const Tensor expected = whole->run("forward", dit_inputs()).at("sample");
  CHECK(parts->run("forward", dit_inputs()).at("sample").equal(expected));
  CHECK_FALSE(load_model(dir / "model")->run("forward", dit_inputs()).at("sample").equal(expected));
}

TEST_CASE("what offload cannot do is said", "[offload]") {
  register_builtin_models();
  const test::TempFolder dir;
  CosmosTransformer3DModel saved(test::tiny_base_config());
  test::fill(saved);
  save_model(dir / "model", saved);
  const auto parts = load_model(dir / "model", {.offload = true});
  CHECK_THROWS_WITH(parts->run("forward", dit_inputs()), Contains("has no gradients"));
  DitConfig other = test::tiny_base_config();
  other.num_layers = 3;
  write_json(dir / "model/config.json", CosmosTransformer3DModel(other).config_json());
  CHECK_THROWS_WITH(load_model(dir / "model", {.offload = true}), Contains("missing"));
}

TEST_CASE("an offloaded generation is the plain one, and takes what is predicted",
          "[offload][pipeline]") {
  const test::TempFolder dir;
  WorldPipeline plain = test::tiny_transfer_pipeline();
  plain.transformer = std::make_shared<CosmosTransformer3DModel>(config());
  test::fill(*plain.transformer);
  plain.control_nets.clear();
  plain.index.class_name = "Cosmos2_5_PredictBasePipeline";
  plain.index.components.erase("controlnet");
  save_world_pipeline(dir / "pipeline", plain);
  const LoadOptions bf16{.dtype = torch::kBFloat16};
  plain = load_world_pipeline(dir / "pipeline", bf16);
  WorldPipeline parts =
      load_world_pipeline(dir / "pipeline", {.dtype = bf16.dtype, .offload = true});
  WorldRequest request{.height = 64, .width = 96, .num_frames = 5, .steps = 3, .guidance = 2};
  request.prompt_embeds = torch::randn({1, 5, 8});
  const World expected = generate_world(plain, request);
  const World world = generate_world(parts, request);
  CHECK(world.latents.equal(expected.latents));
  CHECK(world.video.equal(expected.video));

  const PeakMemory predicted = predict_peak(parts, request), whole = predict_peak(plain, request);
  const int64_t measured = peak_bytes([&] { generate_world(parts, request, [](const World&) {}); });
  INFO("predicted " << predicted.activations << ", measured " << measured);
  CHECK(static_cast<double>(predicted.total()) ==
        Approx(static_cast<double>(predicted.weights + measured)).epsilon(0.1));
  CHECK(predicted.weights < whole.weights / 2);
}

TEST_CASE("tiling and frames at once are in the prediction", "[pipeline][memory]") {
  auto pipeline = test::tiny_transfer_pipeline();
  DitConfig config = test::tiny_base_config();
  config.max_size = {8, 64, 64};
  pipeline.transformer = std::make_shared<CosmosTransformer3DModel>(config);
  pipeline.control_nets.clear();
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  WorldRequest request{.height = 192, .width = 256, .num_frames = 9, .steps = 2};
  const auto check = [&] {
    const auto predicted = static_cast<double>(predict_peak(pipeline, request).activations);
    const auto measured = static_cast<double>(
        peak_bytes([&] { generate_world(pipeline, request, [](const World&) {}); }));
    INFO("predicted " << predicted << ", measured " << measured);
    CHECK(predicted == Approx(measured).epsilon(0.1));
    return measured;
  };
  const double plain = check();
  pipeline.vae->set_tiling(
      Tiling{.tile_height = 96, .tile_width = 96, .stride_height = 64, .stride_width = 64});
  const double tiled = check();
  CHECK(tiled < plain);
  CHECK(pipeline.vae->tiling()->tile_width == 96);  // prediction leaves it as it was
}
