#pragma once

// A multi-view Predict2.5 pipeline of a few weights: 16 x 32 pixels, views of 9 frames.

#include "modules/dit/multiview_transformer.h"
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

}  // namespace cosmos::test
