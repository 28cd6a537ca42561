#include "modules/pipeline/world_pipeline.h"

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/pipeline/family.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTransfer = "Cosmos2_5_TransferPipeline";

template <typename T>
std::shared_ptr<T> load_component(const fs::path& dir, torch::Dtype dtype, const char* expected) {
  require(fs::is_directory(dir), dir.string(), ": no such folder; a pipeline folder needs it");
  auto model = load_model(dir, {.dtype = dtype});
  auto component = std::dynamic_pointer_cast<T>(model);
  require(component != nullptr, dir.string(), ": expected ", expected, ", got ",
          model->class_name());
  component->eval();
  return component;
}

// A control net's residuals are added to the base's tokens, block by block.
void check_fits(const CosmosControlNetModel& net, const DitConfig& base, const std::string& where) {
  const auto expect = [&](int64_t got, int64_t wanted, const char* what) {
    require(got == wanted, where, ": ", what, ": the transformer has ", wanted,
            ", the control net ", got);
  };
  expect(net.config().hidden_size(), base.hidden_size(), "width");
  expect(net.net_config().latent_channels, base.in_channels + 1, "input channels");
  require(net.config().patch_size == base.patch_size, where,
          ": patch_size differs from the transformer's");
  require(base.num_control_residuals() > 0, where,
          ": the transformer takes no control (controlnet_block_every_n is null)");
  require(net.net_config().n_controlnet_blocks >= base.num_control_residuals(), where, ": ",
          net.net_config().n_controlnet_blocks, " control blocks, the transformer needs ",
          base.num_control_residuals());
}

void load_control_nets(WorldPipeline& pipeline, const fs::path& dir, torch::Dtype dtype) {
  if (fs::exists(dir / "config.json")) return add_control_net(pipeline, "", dir, dtype);
  require(fs::is_directory(dir), dir.string(), ": no such folder; a Transfer pipeline needs it");
  for (const auto& entry : fs::directory_iterator(dir))
    if (fs::exists(entry.path() / "config.json"))
      add_control_net(pipeline, entry.path().filename().string(), entry.path(), dtype);
  require(!pipeline.control_nets.empty(), dir.string(),
          ": expected config.json of a control net, or a folder with one for each control");
}

}  // namespace

WorldPipeline load_world_pipeline(const fs::path& dir, torch::Dtype dtype) {
  const PipelineIndex index = read_pipeline_index(dir);
  const WorldFamily family = world_family(index.class_name, (dir / "model_index.json").string());
  WorldPipeline pipeline = load_world_components(
      dir / "transformer", dir / "vae", dir / "scheduler" / "scheduler_config.json", dtype);
  pipeline.index = index;
  const auto listed = index.components.find("controlnet");
  if (family.takes_control && listed != index.components.end() &&
      !listed->second.class_name.empty())
    load_control_nets(pipeline, dir / "controlnet", dtype);
  return pipeline;
}

WorldPipeline load_world_components(const fs::path& transformer, const fs::path& vae,
                                    const fs::path& scheduler, torch::Dtype dtype) {
  WorldPipeline pipeline;
  pipeline.scheduler =
      scheduler.empty() ? scheduler_json(predict25_scheduler(false)) : read_json(scheduler);
  pipeline.transformer =
      load_component<CosmosTransformer3DModel>(transformer, dtype, "CosmosTransformer3DModel");
  pipeline.vae =
      load_component<VideoTokenizer>(vae, dtype, "AutoencoderKLWan or AutoencoderKLCosmos");
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  const auto scheduler_class = pipeline.scheduler.find("_class_name");
  require(scheduler_class != pipeline.scheduler.end() && scheduler_class->is_string(),
          scheduler.string(), ": _class_name is missing");
  pipeline.index.components = {{"transformer", {"diffusers", pipeline.transformer->class_name()}},
                               {"vae", {"diffusers", pipeline.vae->class_name()}},
                               {"scheduler", {"diffusers", scheduler_class->get<std::string>()}},
                               {"text_encoder", {}},
                               {"tokenizer", {}},
                               {"safety_checker", {}}};
  return pipeline;
}

void add_control_net(WorldPipeline& pipeline, const std::string& name, const fs::path& dir,
                     torch::Dtype dtype) {
  auto net = load_component<CosmosControlNetModel>(dir, dtype, "CosmosControlNetModel");
  check_fits(*net, pipeline.transformer->config(), dir.string());
  if (pipeline.index.class_name == "Cosmos2_5_PredictBasePipeline")
    pipeline.index.class_name = kTransfer;
  require(pipeline.index.class_name == kTransfer, dir.string(), ": a ", pipeline.index.class_name,
          " takes no control net");
  pipeline.index.components["controlnet"] = {"diffusers", net->class_name()};
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
