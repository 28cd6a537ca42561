#include "modules/pipeline/world_pipeline.h"

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/pipeline/family.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

// The pipeline that a base becomes when it is given a control net.
std::string with_control(const std::string& class_name) {
  if (class_name == "Cosmos2_5_PredictBasePipeline") return "Cosmos2_5_TransferPipeline";
  return class_name == "CosmosVideoToWorldPipeline" ? "CosmosTransfer1Pipeline" : class_name;
}

template <typename T>
std::shared_ptr<T> load_component(const fs::path& dir, const LoadOptions& options,
                                  const char* expected) {
  require(fs::is_directory(dir), dir.string(), ": no such folder; a pipeline folder needs it");
  auto model = load_model(dir, options);
  auto component = std::dynamic_pointer_cast<T>(model);
  require(component != nullptr, dir.string(), ": expected ", expected, ", got ",
          model->class_name());
  component->eval();
  return component;
}

// A control net's residuals are added to the base's tokens, block by block.
void check_fits(const ControlModel& net, const DitConfig& base, const std::string& where) {
  const auto expect = [&](int64_t got, int64_t wanted, const char* what) {
    require(got == wanted, where, ": ", what, ": the transformer has ", wanted,
            ", the control net ", got);
  };
  expect(net.config().hidden_size(), base.hidden_size(), "width");
  expect(net.latent_channels(), base.in_channels + 1, "input channels");
  require(net.config().patch_size == base.patch_size, where,
          ": patch_size differs from the transformer's");
  const bool enough = net.first_blocks_only() ? net.residuals() <= base.num_control_residuals()
                                              : net.residuals() >= base.num_control_residuals();
  require(enough, where, ": ", net.residuals(), " control blocks, the transformer has places for ",
          base.num_control_residuals());
}

}  // namespace

void fit_interval(CosmosTransformer3DModel& base, const ControlModel& net) {
  if (base.config().controlnet_block_every_n) return;
  if (net.first_blocks_only()) return base.set_control_interval(1);
  const int64_t blocks = net.residuals();
  base.set_control_interval((base.config().num_layers + blocks - 1) / blocks);
}

namespace {

void load_control_nets(WorldPipeline& pipeline, const fs::path& dir, const LoadOptions& options) {
  if (fs::exists(dir / "config.json")) return add_control_net(pipeline, "", dir, options);
  require(fs::is_directory(dir), dir.string(), ": no such folder; a Transfer pipeline needs it");
  for (const auto& entry : fs::directory_iterator(dir))
    if (fs::exists(entry.path() / "config.json"))
      add_control_net(pipeline, entry.path().filename().string(), entry.path(), options);
  require(!pipeline.control_nets.empty(), dir.string(),
          ": expected config.json of a control net, or a folder with one for each control");
}

}  // namespace

WorldPipeline load_world_pipeline(const fs::path& dir, const LoadOptions& options) {
  const PipelineIndex index = read_pipeline_index(dir);
  const WorldFamily family = world_family(index.class_name, (dir / "model_index.json").string());
  WorldPipeline pipeline = load_world_components(
      dir / "transformer", dir / "vae", dir / "scheduler" / "scheduler_config.json", options);
  pipeline.index = index;
  const auto listed = index.components.find("controlnet");
  if (family.takes_control && listed != index.components.end() &&
      !listed->second.class_name.empty())
    load_control_nets(pipeline, dir / "controlnet", options);
  return pipeline;
}

WorldPipeline load_world_components(const fs::path& transformer, const fs::path& vae,
                                    const fs::path& scheduler, const LoadOptions& options) {
  WorldPipeline pipeline;
  pipeline.scheduler =
      scheduler.empty() ? scheduler_json(predict25_scheduler(false)) : read_json(scheduler);
  pipeline.transformer =
      load_component<CosmosTransformer3DModel>(transformer, options, "CosmosTransformer3DModel");
  LoadOptions whole = options;
  whole.offload = false;
  pipeline.vae =
      load_component<VideoTokenizer>(vae, whole, "AutoencoderKLWan or AutoencoderKLCosmos");
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  const auto scheduler_class = pipeline.scheduler.find("_class_name");
  require(scheduler_class != pipeline.scheduler.end() && scheduler_class->is_string(),
          scheduler.string(), ": _class_name is missing");
  const bool public_class = pipeline.transformer->class_name() == "CosmosTransformer3DModel";
  pipeline.index.components = {
      {"transformer", {public_class ? "diffusers" : "cosmos", pipeline.transformer->class_name()}},
      {"vae", {"diffusers", pipeline.vae->class_name()}},
      {"scheduler", {"diffusers", scheduler_class->get<std::string>()}},
      {"text_encoder", {}},
      {"tokenizer", {}},
      {"safety_checker", {}}};
  return pipeline;
}

void add_control_net(WorldPipeline& pipeline, const std::string& name, const fs::path& dir,
                     const LoadOptions& options) {
  auto net = load_component<ControlModel>(
      dir, options, "CosmosControlNetModel or CosmosTransfer1ControlNetModel");
  const bool views = net->class_name() == "CosmosMultiViewControlNetModel";
  require(views == (pipeline.transformer->class_name() == "CosmosMultiViewTransformer3DModel"),
          dir.string(), ": a ", net->class_name(), " does not go with a ",
          pipeline.transformer->class_name());
  fit_interval(*pipeline.transformer, *net);
  check_fits(*net, pipeline.transformer->config(), dir.string());
  std::string& class_name = pipeline.index.class_name;
  class_name = with_control(class_name);
  require(world_family(class_name, dir.string()).takes_control, dir.string(), ": a ", class_name,
          " takes no control net");
  const bool public_class = net->class_name() == "CosmosControlNetModel";
  pipeline.index.components["controlnet"] = {public_class ? "diffusers" : "cosmos",
                                             net->class_name()};
  pipeline.control_nets[name] = std::move(net);
}

void save_world_pipeline(const fs::path& dir, const WorldPipeline& pipeline) {
  save_model(dir / "transformer", *pipeline.transformer);
  save_model(dir / "vae", *pipeline.vae);
  for (const auto& [name, net] : pipeline.control_nets)
    save_model(name.empty() || pipeline.control_nets.size() == 1 ? dir / "controlnet"
                                                                 : dir / "controlnet" / name,
               *net);
  write_json(dir / "scheduler" / "scheduler_config.json", pipeline.scheduler);
  PipelineIndex index = pipeline.index;
  for (auto& [name, component] : index.components)
    if (name != "transformer" && name != "vae" && name != "scheduler" && name != "controlnet")
      component = {};
  write_pipeline_index(dir, index);  // last: a folder with an index is complete
}

}  // namespace cosmos::modules
