#include "modules/transfer/control_net_config.h"

namespace cosmos::modules {

DitConfig ControlNetConfig::dit_config() const {
  DitConfig dit;
  dit.in_channels = latent_channels - 1;  // the padding mask is counted apart there
  dit.num_attention_heads = num_attention_heads;
  dit.attention_head_dim = attention_head_dim;
  dit.num_layers = n_controlnet_blocks;
  dit.mlp_ratio = mlp_ratio;
  dit.text_embed_dim = text_embed_dim;
  dit.adaln_lora_dim = adaln_lora_dim;
  dit.max_size = max_size;
  dit.patch_size = patch_size;
  dit.rope_scale = rope_scale;
  dit.concat_padding_mask = true;
  dit.extra_pos_embed_type = extra_pos_embed_type;
  dit.use_crossattn_projection = use_crossattn_projection;
  dit.crossattn_proj_in_channels = crossattn_proj_in_channels;
  dit.encoder_hidden_states_channels = encoder_hidden_states_channels;
  dit.img_context_dim_in = img_context_dim_in;
  dit.img_context_dim_out = img_context_dim_out;
  return dit;
}

ControlNetConfig ControlNetConfig::of_base(const DitConfig& base, int64_t blocks,
                                           int64_t control_channels) {
  return {.n_controlnet_blocks = blocks,
          .in_channels = control_channels + 2,
          .latent_channels = base.in_channels + 1,
          .model_channels = base.hidden_size(),
          .num_attention_heads = base.num_attention_heads,
          .attention_head_dim = base.attention_head_dim,
          .mlp_ratio = base.mlp_ratio,
          .text_embed_dim = base.text_embed_dim,
          .adaln_lora_dim = base.adaln_lora_dim,
          .patch_size = base.patch_size,
          .max_size = base.max_size,
          .rope_scale = base.rope_scale,
          .extra_pos_embed_type = base.extra_pos_embed_type,
          .img_context_dim_in = base.img_context_dim_in,
          .img_context_dim_out = base.img_context_dim_out,
          .use_crossattn_projection = base.use_crossattn_projection,
          .crossattn_proj_in_channels = base.crossattn_proj_in_channels,
          .encoder_hidden_states_channels = base.encoder_hidden_states_channels};
}

void ControlNetConfig::check(const std::string& where) const {
  require(n_controlnet_blocks > 0, where, ": n_controlnet_blocks: expected a positive number, got ",
          n_controlnet_blocks);
  require(in_channels > 2, where,
          ": in_channels: expected room for control latents and two masks (3 or more), got ",
          in_channels);
  require(latent_channels > 1, where,
          ": latent_channels: expected latents and a padding mask (2 or more), got ",
          latent_channels);
  dit_config().check(where);
  require(model_channels == num_attention_heads * attention_head_dim, where,
          ": model_channels: expected num_attention_heads x attention_head_dim = ",
          num_attention_heads * attention_head_dim, ", got ", model_channels);
}

ControlNetConfig ControlNetConfig::from_json(const Json& json, const std::string& where) {
  ControlNetConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  config.extra = without_fields(json, config);
  config.check(where);
  return config;
}

Json ControlNetConfig::to_json() const {
  Json json = extra;
  json.update(write_fields(*this));
  json["_class_name"] = "CosmosControlNetModel";
  if (!json.contains("_diffusers_version")) json["_diffusers_version"] = "0.42.1";
  return json;
}

}  // namespace cosmos::modules
