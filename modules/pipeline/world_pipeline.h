#pragma once

// Pipeline folders of every Cosmos generation: model_index.json, transformer/, vae/,
// scheduler/scheduler_config.json and, for Transfer, controlnet/. Text encoders and guardrails are
// other people's components: kept in the index, not read here.

#include <filesystem>
#include <map>
#include <memory>

#include "modules/dit/transformer.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/hub/registry.h"
#include "modules/tokenizer/video_tokenizer.h"
#include "modules/transfer/control_net.h"

namespace cosmos::modules {

struct WorldPipeline {
  PipelineIndex index;
  Json scheduler;  ///< scheduler_config.json as read
  std::shared_ptr<CosmosTransformer3DModel> transformer;
  std::shared_ptr<VideoTokenizer> vae;
  /// By what they are trained on ("edge", "blur", "depth", "seg", ...). One alone may be nameless
  /// (""): it takes whatever control is given.
  std::map<std::string, std::shared_ptr<ControlModel>> control_nets = {};
};

/// controlnet/ holds a control net, or a folder for each control (controlnet/edge/, ...). Throws
/// Error when a component is missing or of another class. `offload` is for transformer and control
/// nets; the tokenizer is small.
WorldPipeline load_world_pipeline(const std::filesystem::path& dir,
                                  const LoadOptions& options = {});

/// The same from component folders; `scheduler` empty: Predict2.5's flow levels with shift 5.
WorldPipeline load_world_components(const std::filesystem::path& transformer,
                                    const std::filesystem::path& vae,
                                    const std::filesystem::path& scheduler,
                                    const LoadOptions& options = {});

/// Adds the control net of folder `dir` under `name`, and makes a Predict2.5 pipeline one of
/// Transfer2.5, a Predict1 one of Transfer1. Throws Error when it does not fit the transformer.
void add_control_net(WorldPipeline& pipeline, const std::string& name,
                     const std::filesystem::path& dir, const LoadOptions& options);

/// Spreads the net's residuals over the blocks of a base whose config does not say where they go
/// (one trained without control); others keep their interval.
void fit_interval(CosmosTransformer3DModel& base, const ControlModel& net);

/// Writes a pipeline folder that diffusers' pipeline of the class has the components of; text
/// encoder and guardrail are left out (null in model_index.json). Several control nets become
/// controlnet/NAME/, which diffusers loads one by one.
void save_world_pipeline(const std::filesystem::path& dir, const WorldPipeline& pipeline);

}  // namespace cosmos::modules
