#pragma once

// A Transfer pipeline of a few weights with two control nets, edge and depth: 16 x 32 pixels,
// chunks of up to 29 frames.

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/registry.h"
#include "modules/pipeline/world_pipeline.h"
#include "modules/registry.h"
#include "test/support/golden_model.h"

namespace cosmos::test {

inline modules::DitConfig tiny_base_config() {
  modules::DitConfig config;
  config.in_channels = 5;
  config.out_channels = 4;
  config.num_attention_heads = 2;
  config.attention_head_dim = 12;
  config.num_layers = 2;
  config.mlp_ratio = 2;
  config.text_embed_dim = 8;
  config.adaln_lora_dim = 4;
  config.max_size = {8, 16, 16};
  config.extra_pos_embed_type = std::nullopt;
  config.controlnet_block_every_n = 1;
  return config;
}

inline Json tiny_vae_config() {
  return {{"_class_name", "AutoencoderKLCosmos"},
          {"latent_channels", 4},
          {"encoder_block_out_channels", {8, 8, 8}},
          {"decode_block_out_channels", {8, 8, 8}},
          {"num_layers", 1},
          {"patch_size", 4},
          {"resolution", 32},
          {"attention_resolutions", Json::array()},
          {"spatial_compression_ratio", 8},
          {"temporal_compression_ratio", 4},
          {"latents_mean", nullptr},
          {"latents_std", nullptr}};
}

inline std::shared_ptr<modules::CosmosControlNetModel> tiny_net(double gain) {
  auto net = std::make_shared<modules::CosmosControlNetModel>(
      modules::ControlNetConfig::of_base(tiny_base_config(), 2, 6));
  fill(*net);
  const torch::NoGradGuard no_grad;
  for (auto& item : net->named_parameters())
    if (item.key().find("after_proj") != std::string::npos) item.value().mul_(gain);
  return net;
}

inline modules::WorldPipeline tiny_transfer_pipeline() {
  modules::register_builtin_models();
  torch::manual_seed(3);
  modules::WorldPipeline pipeline;
  pipeline.scheduler = scheduler_json(modules::predict25_scheduler(false));
  pipeline.transformer = std::make_shared<modules::CosmosTransformer3DModel>(tiny_base_config());
  pipeline.vae = std::dynamic_pointer_cast<modules::VideoTokenizer>(
      modules::make_model(tiny_vae_config(), "vae"));
  pipeline.index.class_name = "Cosmos2_5_TransferPipeline";
  pipeline.index.components = {{"transformer", {"diffusers", "CosmosTransformer3DModel"}},
                               {"vae", {"diffusers", "AutoencoderKLCosmos"}},
                               {"scheduler", {"diffusers", "UniPCMultistepScheduler"}},
                               {"controlnet", {"diffusers", "CosmosControlNetModel"}}};
  pipeline.control_nets = {{"edge", tiny_net(1)}, {"depth", tiny_net(-0.5)}};
  return pipeline;
}

}  // namespace cosmos::test
