#pragma once

// A multi-view Predict2.5 pipeline of a few weights: 16 x 32 pixels, views of 9 frames.

#include "modules/dit/multiview_transformer.h"
#include "modules/transfer/multiview_control_net.h"
#include "test/support/tiny_transfer.h"

namespace cosmos::test {

inline modules::WorldPipeline tiny_multiview_pipeline() {
  modules::WorldPipeline pipeline = tiny_transfer_pipeline();
  modules::DitConfig base = tiny_base_config();
  base.controlnet_block_every_n = std::nullopt;
  pipeline.transformer = std::make_shared<modules::CosmosMultiViewTransformer3DModel>(
      modules::MultiViewConfig{.dit = base, .state_t = 3});
  fill(*pipeline.transformer);
  pipeline.control_nets.clear();
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  pipeline.index.components = {{"transformer", {"cosmos", "CosmosMultiViewTransformer3DModel"}},
                               {"vae", {"diffusers", "AutoencoderKLCosmos"}},
                               {"scheduler", {"diffusers", "UniPCMultistepScheduler"}}};
  return pipeline;
}

/// The same with a control net.
inline modules::WorldPipeline tiny_multiview_transfer_pipeline() {
  modules::WorldPipeline pipeline = tiny_multiview_pipeline();
  auto& base = dynamic_cast<modules::CosmosMultiViewTransformer3DModel&>(*pipeline.transformer);
  base.set_control_interval(1);
  modules::MultiViewControlConfig config = modules::MultiViewControlConfig::of_base(
      {.dit = base.config(), .state_t = 3}, /*blocks=*/2, /*control_channels=*/6);
  config.hint_layers = 2;
  auto net = std::make_shared<modules::CosmosMultiViewControlNetModel>(config);
  fill(*net);
  pipeline.control_nets = {{"hdmap", net}};
  pipeline.index.class_name = "Cosmos2_5_TransferPipeline";
  pipeline.index.components["controlnet"] = {"cosmos", "CosmosMultiViewControlNetModel"};
  return pipeline;
}

}  // namespace cosmos::test
