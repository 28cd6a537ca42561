// Checkpoints in NVIDIA's spelling: a model goes out and comes back equal in every bit; what does
// not belong is named.

#include <catch2/catch.hpp>

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/registry.h"
#include "modules/hub/weight_folder.h"
#include "modules/native/export.h"
#include "modules/native/import.h"
#include "modules/native/pipeline.h"
#include "modules/registry.h"
#include "modules/transfer/multiview_control_net.h"
#include "modules/transfer/transfer1.h"
#include "test/modules/hub/hostile.h"
#include "test/modules/tokenizer/tokenizers.h"

using namespace cosmos;
using namespace cosmos::modules;
using namespace cosmos::test;

namespace {

Json dit(const Json& changes = Json::object()) {
  Json config = {{"_class_name", "CosmosTransformer3DModel"},
                 {"in_channels", 17},
                 {"out_channels", 16},
                 {"num_attention_heads", 2},
                 {"attention_head_dim", 12},
                 {"num_layers", 2},
                 {"mlp_ratio", 2.0},
                 {"text_embed_dim", 8},
                 {"adaln_lora_dim", 4},
                 {"extra_pos_embed_type", nullptr},
                 {"rope_scale", {1.0, 3.0, 3.0}}};
  config.update(changes);
  return config;
}

Json with_class(Json config, const char* name) {
  config["_class_name"] = name;
  return config;
}

// Folder -> native .pt -> folder again, in memory but for the files.
struct RoundTrip {
  explicit RoundTrip(const Json& config) : dir((folder / "model").string()) {
    register_builtin_models();
    auto model = make_model(config, "test");
    fill(*model);
    cast_model(*model, torch::kBFloat16);
    before = file_tensors(*model);
    save_model(dir, *model);
    save_pytorch_file(folder / "native.pt", export_native(dir).tensors);
  }
  NativeImport import(const ImportOptions& options = {}) const {
    return import_native(open_native(folder / "native.pt"), "native.pt", options);
  }
  /// Imports `tensors` in place of the file's.
  std::string refusal(const LazyTensors& tensors) const {
    return error_of([&] { import_native({.format = "test", .tensors = tensors}, "x.pt"); });
  }
  LazyTensors native() const { return read_pytorch_file(folder / "native.pt").tensors; }

  TempFolder folder;
  std::string dir;
  TensorMap before;
};

void check_same(const LazyTensors& after, const TensorMap& before) {
  REQUIRE(after.size() == before.size());
  for (const auto& [name, tensor] : before) {
    INFO(name);
    REQUIRE(after.count(name) == 1);
    const Tensor read = after.at(name).read();
    CHECK(read.scalar_type() == tensor.scalar_type());
    CHECK(torch::equal(read, tensor));
  }
}

}  // namespace

TEST_CASE("Transformers keep every bit on the way to NVIDIA's names and back", "[native]") {
  const std::vector<std::pair<Json, std::string>> cases = {
      {dit({{"extra_pos_embed_type", "learnable"},
            {"max_size", {4, 12, 16}},
            {"rope_scale", {2.0, 1.0, 1.0}}}),
       "net.blocks.block1.blocks.2.adaLN_modulation.1.weight"},
      {dit({{"in_channels", 16}, {"rope_scale", {1.0, 4.0, 4.0}}, {"num_layers", 11}}),
       "net.blocks.10.adaln_modulation_mlp.2.weight"},
      {dit({{"use_crossattn_projection", true},
            {"crossattn_proj_in_channels", 20},
            {"encoder_hidden_states_channels", 8}}),
       "net.crossattn_proj.0.bias"}};
  for (const auto& [config, key] : cases) {
    const RoundTrip trip(config);
    CHECK(trip.native().count(key) == 1);
    CHECK(trip.native().count("net.x_embedder.proj.1.weight") == 1);
    const NativeImport import = trip.import();
    REQUIRE(import.components.size() == 1);
    CHECK(import.components[0].name == "transformer");
    check_same(import.components[0].tensors, trip.before);
    for (const auto& [name, value] : config.items()) {
      INFO(name);
      CHECK(import.components[0].config[name] == value);
    }
  }
}

TEST_CASE("Action-conditioned transformers come in and go out", "[native][action]") {
  for (const auto& [dim, count, frames] :
       {std::tuple{7, 4, true}, std::tuple{29, 4, true}, std::tuple{7, 12, false}}) {
    Json config = with_class(dit(), "CosmosActionTransformer3DModel");
    config.update({{"action_dim", dim}, {"num_actions", count}, {"per_latent_frame", frames}});
    const RoundTrip trip(config);
    CHECK(trip.native().count("net.action_embedder_B_3D.fc2.bias") == 1);
    const NativeImport import = trip.import();
    REQUIRE(import.components.size() == 1);
    check_same(import.components[0].tensors, trip.before);
    const Json& found = import.components[0].config;
    CHECK(found["_class_name"] == "CosmosActionTransformer3DModel");
    CHECK(found["action_dim"] == dim);
    CHECK(found["num_actions"] == count);
    CHECK(found["per_latent_frame"] == frames);
  }
}

TEST_CASE("Multi-view transformers come in and go out", "[native][multiview]") {
  Json config = with_class(dit(), "CosmosMultiViewTransformer3DModel");
  config.update({{"state_t", 8},
                 {"n_cameras_emb", 5},
                 {"view_condition_dim", 6},
                 {"rope_scale", {8.0 / 24, 3.0, 3.0}}});
  const RoundTrip trip(config);
  const LazyTensors native = trip.native();
  CHECK(native.at("net.x_embedder.proj.1.weight").shape == std::vector<int64_t>{24, 96});
  CHECK(native.count("net.pos_embedder_options.n_cameras_5.seq") == 1);
  CHECK(native.count("net.pos_embedder_options.n_cameras_6.seq") == 0);
  const NativeImport import = trip.import();
  REQUIRE(import.components.size() == 1);
  check_same(import.components[0].tensors, trip.before);
  for (const auto& [name, value] : config.items()) {
    INFO(name);
    CHECK(import.components[0].config[name] == value);
  }
  CHECK(has(report_of(import), "state_t 8"));
  const NativeImport longer = trip.import({.config = {{"state_t", 24}}});
  CHECK(longer.components[0].config["state_t"] == 24);
  LazyTensors narrow = native;
  narrow["net.view_embeddings.weight"] = lazy_tensors({{"x", torch::ones({5, 40})}}).at("x");
  CHECK(has(trip.refusal(narrow), "view_embeddings.weight: expected [cameras"));
}

TEST_CASE("Multi-view control branches come in with their base and go out", "[native][multiview]") {
  register_builtin_models();
  Json config = with_class(dit({{"num_layers", 4}}), "CosmosMultiViewTransformer3DModel");
  config.update({{"state_t", 8},
                 {"n_cameras_emb", 3},
                 {"view_condition_dim", 2},
                 {"rope_scale", {8.0 / 24, 3.0, 3.0}},
                 {"controlnet_block_every_n", 2}});
  const auto base =
      std::dynamic_pointer_cast<CosmosMultiViewTransformer3DModel>(make_model(config, "test"));
  fill(*base);
  MultiViewControlConfig branch =
      MultiViewControlConfig::of_base(base->view_config(), /*blocks=*/2, /*control_channels=*/40);
  branch.hint_layers = 3;
  CosmosMultiViewControlNetModel net(branch);
  fill(net);
  net.copy_base(*base);
  const TempFolder folder;
  save_model(folder / "pipeline/transformer", *base);
  save_model(folder / "pipeline/controlnet", net);
  write_pipeline_index(folder / "pipeline",
                       {.class_name = "Cosmos2_5_TransferPipeline",
                        .components = {{"transformer", {"cosmos", base->class_name()}},
                                       {"controlnet", {"cosmos", net.class_name()}}}});
  save_pytorch_file(folder / "native.pt", export_native(folder / "pipeline").tensors);
  const NativeImport import = import_native(open_native(folder / "native.pt"), "native.pt");
  REQUIRE(import.components.size() == 2);
  for (const auto& component : import.components) {
    const bool control = component.name == "controlnet";
    check_same(component.tensors, control ? file_tensors(net) : file_tensors(*base));
    const Json want = control ? net.config_json() : base->config_json();
    for (const auto& [key, value] : want.items()) {
      INFO(component.name << " " << key);
      if (key != "max_size" && key[0] != '_') CHECK(component.config[key] == value);
    }
  }
}

namespace {

Json transfer1() {
  return {{"_class_name", "CosmosTransfer1ControlNetModel"},
          {"num_control_blocks", 2},
          {"in_channels", 17},
          {"hint_channels", 20},
          {"num_attention_heads", 2},
          {"attention_head_dim", 12},
          {"mlp_ratio", 2.0},
          {"text_embed_dim", 8},
          {"adaln_lora_dim", 4},
          {"max_size", {4, 8, 8}},
          {"hint_widths", {6, 10}}};
}

void check_config(const Json& got, const Json& want) {
  for (const auto& [key, value] : want.items()) {
    INFO(key);
    CHECK(got[key] == value);
  }
}

}  // namespace

TEST_CASE("Transfer1's branch comes in and goes out, without the head it never uses", "[native]") {
  const RoundTrip trip(transfer1());
  LazyTensors native = trip.native();
  CHECK(native.count("net.x_embedder2.proj.1.weight") == 1);
  CHECK(native.count("net.input_hint_block.4.bias") == 1);
  CHECK(native.count("net.zero_blocks.block1.weight") == 1);
  CHECK(native.count("net.blocks.block1.blocks.0.block.attn.to_q.0.weight") == 1);
  native["net.final_layer.linear.weight"] = lazy_tensors({{"x", torch::ones({2})}}).at("x");
  const NativeImport import = import_native({.format = "test", .tensors = native}, "x.pt");
  REQUIRE(import.components.size() == 1);
  CHECK(import.components[0].name == "controlnet");
  check_same(import.components[0].tensors, trip.before);
  check_config(import.components[0].config, transfer1());
  REQUIRE(import.dropped.size() == 1);
  CHECK(import.dropped[0].key == "net.final_layer.linear.weight");
  CHECK_FALSE(import.one_step);
  native.erase("net.input_hint_block.0.weight");
  CHECK(has(trip.refusal(native), "hint_embed.0.weight is missing; not a whole control branch"));
}

TEST_CASE("Transfer1's distilled file is a base and its branch, and makes a one-step pipeline",
          "[native]") {
  register_builtin_models();
  const Json config = dit({{"extra_pos_embed_type", "learnable"},
                           {"max_size", {4, 8, 8}},
                           {"rope_scale", {2.0, 1.0, 1.0}}});
  const auto base = make_model(config, "test"), net = make_model(transfer1(), "test");
  fill(*base);
  fill(*net);
  const TempFolder folder;
  save_model(folder / "pipeline/transformer", *base);
  save_model(folder / "pipeline/controlnet", *net);
  write_json(folder / "pipeline/scheduler/scheduler_config.json", scheduler_json(OneStepConfig{}));
  write_pipeline_index(folder / "pipeline",
                       {.class_name = "CosmosTransfer1Pipeline",
                        .components = {{"transformer", {"diffusers", base->class_name()}},
                                       {"controlnet", {"cosmos", net->class_name()}}}});
  const LazyTensors native = export_native(folder / "pipeline").tensors;
  // As torch.save writes a state dict beside the noise levels' weights.
  LazyTensors file;
  for (const auto& [name, tensor] : native) file["model." + name] = tensor;
  file["model.logvar.0.freqs"] = native.begin()->second;
  const NativeImport import = import_native({.format = "test", .tensors = file}, "x.pt");
  REQUIRE(import.components.size() == 2);
  CHECK(import.components[0].name == "transformer");
  check_same(import.components[0].tensors, file_tensors(*base));
  check_config(import.components[0].config, config);
  CHECK(import.components[1].name == "controlnet");
  check_same(import.components[1].tensors, file_tensors(*net));
  CHECK(import.dropped.size() == 1);
  const PipelineKind kind = pipeline_of(import);
  CHECK(kind.class_name == "CosmosTransfer1Pipeline");
  CHECK(is_one_step(kind.scheduler));

  // The base of a program that holds both is one on its own.
  LazyTensors alone;
  for (const auto& [name, tensor] : native)
    if (name.rfind("net.base_model.", 0) == 0) alone[name.substr(4)] = tensor;
  const NativeImport part = import_native({.format = "test", .tensors = alone}, "base_model.pt");
  REQUIRE(part.components.size() == 1);
  check_same(part.components[0].tensors, file_tensors(*base));

  write_json(folder / "pipeline/scheduler/scheduler_config.json", scheduler_json(EdmEulerConfig{}));
  CHECK(has(error_of([&] { export_native(folder / "pipeline"); }), "give the component's folder"));
}

TEST_CASE("Tokenizers keep every bit on the way to NVIDIA's names and back", "[native]") {
  const Json image = {{"_class_name", "CosmosImageTokenizer"},
                      {"channels", 32},
                      {"channel_multipliers", {1, 2}},
                      {"num_layers", 1},
                      {"z_channels", 4},
                      {"latent_channels", 3}};
  Json codes = with_class(image, "CosmosDiscreteImageTokenizer");
  codes["levels"] = {5, 4, 3};
  Json discrete = with_class(cosmos_config(), "CosmosDiscreteVideoTokenizer");
  discrete.update({{"levels", {8, 5}}, {"z_channels", 6}, {"resolution", 1024}});
  discrete["attention_resolutions"] = {256};
  discrete.erase("latent_channels");  // the number of levels
  Json continuous = with_class(cosmos_config(), "AutoencoderKLCosmos");
  continuous.update({{"resolution", 1024}, {"attention_resolutions", {256}}});
  Json wan = with_class(wan_config(), "AutoencoderKLWan");
  wan.update({{"latents_mean", {0.0, 0.0}}, {"latents_std", {1.0, 1.0}}});
  for (const Json& config : {continuous, discrete, image, codes, wan}) {
    INFO(config.dump());
    const RoundTrip trip(config);
    const NativeImport import = trip.import();
    REQUIRE(import.components.size() == 1);
    CHECK(import.components[0].name == "vae");
    check_same(import.components[0].tensors, trip.before);
    const Json& made = import.components[0].config;
    for (const auto& [name, value] : config.items())
      if (!name.starts_with("latents_")) CHECK(made[name] == value);
  }
}

TEST_CASE("Wrappers are looked through, the superfluous is dropped with a reason", "[native]") {
  const RoundTrip trip(dit());
  LazyTensors tensors;
  for (const auto& [name, tensor] : trip.native()) {
    std::string wrapped = name;
    if (wrapped.rfind("net.blocks.0.", 0) == 0)
      wrapped.insert(std::string("net.blocks.0.").size(), "_checkpoint_wrapped_module.");
    tensors["model.module." + wrapped] = tensor;
    tensors["model.module.net_ema." + name.substr(4)] = {
        tensor.dtype, tensor.shape, [tensor = tensor] { return tensor.read() * 0; }};
  }
  const LazyTensor extra = lazy_tensors({{"x", torch::ones({2})}}).at("x");
  tensors["model.module.net.accum_iteration"] = extra;
  tensors["model.module.net.blocks.1.self_attn.attn_op._extra_state"] = extra;
  tensors["optimizer.state.0"] = extra;
  const WeightSource source{.format = "test", .tensors = tensors, .others = {{"step", "7"}}};
  const NativeImport import = import_native(source, "x.pt");
  check_same(import.components[0].tensors, trip.before);
  std::map<std::string, std::string> reasons;
  for (const auto& note : import.dropped) reasons[note.key] = note.reason;
  CHECK(has(reasons["model.module.net.accum_iteration"], "counter"));
  CHECK(has(reasons["model.module.net.blocks.1.self_attn.attn_op._extra_state"], "Transformer"));
  CHECK(has(reasons["optimizer.state.0"], "outside the network"));
  CHECK(has(reasons["model.module.net_ema.final_layer.linear.weight"], "--ema"));
  CHECK(has(reasons["step"], "no tensor"));
  const NativeImport ema = import_native(source, "x.pt", {.ema = true});
  CHECK(ema.components[0].tensors.at("proj_out.weight").read().abs().sum().item<double>() == 0);
}

TEST_CASE("Checkpoints that do not fit are refused by key", "[native]") {
  const RoundTrip trip(dit());
  const LazyTensor extra = lazy_tensors({{"x", torch::ones({2})}}).at("x");
  LazyTensors tensors = trip.native();
  tensors["net.blocks.0.self_attn.surprise.weight"] = extra;
  CHECK(has(trip.refusal(tensors), "1 keys have no place"));
  CHECK(has(trip.refusal(tensors), "net.blocks.0.self_attn.surprise.weight"));
  tensors = trip.native();
  tensors.erase("net.blocks.1.mlp.layer2.weight");
  CHECK(has(trip.refusal(tensors), "lacks transformer_blocks.1.ff.net.2.weight"));
  tensors = trip.native();
  tensors["net.t_embedding_norm.weight"] = extra;
  CHECK(has(trip.refusal(tensors), "time_embed.norm.weight: checkpoint has [2], model wants [24]"));
  tensors = trip.native();
  tensors["net._orig_mod.t_embedding_norm.weight"] = extra;
  CHECK(has(trip.refusal(tensors), "are both t_embedding_norm.weight"));
  CHECK(has(trip.refusal({{"a.weight", extra}}), "no model known here has these keys (first: a"));
  CHECK(has(error_of([&] { trip.import({.ema = true}); }), "holds no averages"));
  CHECK(has(error_of([&] { trip.import({.config = {{"rope", 1}}}); }), "rope is not a key"));
  CHECK(trip.import({.config = {{"rope_scale", {1, 2, 2}}}})
            .components[0]
            .config["rope_scale"]
            .dump() == "[1,2,2]");
}

TEST_CASE("Pipelines and schedulers follow from the transformer", "[native]") {
  const auto kind = [](const Json& config) {
    return pipeline_of({.family = "test", .components = {{"transformer", dit(config), {}}}});
  };
  CHECK(kind(Json::object()).class_name == "Cosmos2VideoToWorldPipeline");
  CHECK(kind({{"in_channels", 16}}).class_name == "Cosmos2TextToImagePipeline");
  CHECK(kind({{"use_crossattn_projection", true}, {"encoder_hidden_states_channels", 8}})
            .scheduler["_class_name"] == "UniPCMultistepScheduler");
  CHECK(kind({{"extra_pos_embed_type", "learnable"}}).scheduler["sigma_data"] == 0.5);
  CHECK(kind({{"_class_name", "CosmosMultiViewTransformer3DModel"},
              {"use_crossattn_projection", true},
              {"encoder_hidden_states_channels", 8}})
            .scheduler["flow_shift"] == 5.0);
  CHECK(has(error_of([] { pipeline_of({.family = "Wan VAE"}); }), "makes no pipeline"));
}
