#include "modules/native/pipeline.h"

#include "modules/diffusion/scheduler_config.h"
#include "modules/dit/config.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"

namespace cosmos::modules {
namespace {

Json edm_scheduler() {
  // NVIDIA declares sigma_min 0.0002 and never uses it; 0.002 is what its sampler runs with.
  return {{"_class_name", "EDMEulerScheduler"},
          {"sigma_min", 0.002},
          {"sigma_max", 80.0},
          {"sigma_data", 0.5},
          {"sigma_schedule", "karras"},
          {"num_train_timesteps", 1000},
          {"prediction_type", "epsilon"},
          {"rho", 7.0},
          {"final_sigmas_type", "sigma_min"}};
}

Json flow_euler_scheduler() {
  return {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"use_karras_sigmas", true}};
}

Json unipc_scheduler() {
  return {{"_class_name", "UniPCMultistepScheduler"},
          {"use_karras_sigmas", true},
          {"use_flow_sigmas", true},
          {"prediction_type", "flow_prediction"},
          {"sigma_max", 200.0},
          {"sigma_min", 0.01}};
}

}  // namespace

PipelineKind pipeline_of(const NativeImport& import) {
  const NativeComponent *transformer = nullptr, *control = nullptr;
  for (const auto& component : import.components) {
    if (component.name == "transformer") transformer = &component;
    if (component.name == "controlnet") control = &component;
  }
  require(transformer != nullptr, "a ", import.family,
          " makes no pipeline; give the transformer and name the VAE with --vae");
  const DitConfig config = DitConfig::from_json(transformer->config, "transformer");
  // NVIDIA runs them with linear levels and shift 5, not with the post-trained 2B's.
  if (transformer->config["_class_name"] == "CosmosMultiViewTransformer3DModel" &&
      config.use_crossattn_projection)
    return {"Cosmos2_5_PredictBasePipeline", scheduler_json(predict25_scheduler(false))};
  if (control && control->config["_class_name"] == "CosmosTransfer1ControlNetModel")
    return {"CosmosTransfer1Pipeline",
            import.one_step ? scheduler_json(OneStepConfig{}) : edm_scheduler()};
  if (control) return {"Cosmos2_5_TransferPipeline", unipc_scheduler()};
  if (config.use_crossattn_projection) return {"Cosmos2_5_PredictBasePipeline", unipc_scheduler()};
  const bool video = config.in_channels > config.out_channels;  // a condition mask comes in
  if (config.has_learnable_positions())
    return {video ? "CosmosVideoToWorldPipeline" : "CosmosTextToWorldPipeline", edm_scheduler()};
  return {video ? "Cosmos2VideoToWorldPipeline" : "Cosmos2TextToImagePipeline",
          flow_euler_scheduler()};
}

std::string transformers_class(const std::filesystem::path& dir) {
  const auto has = [&](const char* name) { return is_file(dir / name); };
  if (has("config.json")) {
    const Json config = read_json(dir / "config.json");
    if (config.contains("architectures") && config["architectures"].is_array() &&
        !config["architectures"].empty() && config["architectures"][0].is_string())
      return config["architectures"][0].get<std::string>();
  }
  if (has("tokenizer_config.json")) {
    const Json config = read_json(dir / "tokenizer_config.json");
    if (config.contains("tokenizer_class") && config["tokenizer_class"].is_string())
      return config["tokenizer_class"].get<std::string>();
  }
  fail(dir.string(),
       ": expected a config.json with architectures, or a tokenizer_config.json with ",
       "tokenizer_class");
}

}  // namespace cosmos::modules
