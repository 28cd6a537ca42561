#include "modules/transfer/native_names.h"

#include "modules/dit/native_names.h"

namespace cosmos::modules {

NameMap control_native_names() {
  NameMap names;
  names.add("control_embedder.proj.1.weight", "patch_embed.proj.weight");
  names.add("control_blocks.*", "control_blocks.*", dit_block_names());
  names.add_layer("input_hint_block.*", "hint_embed.*");
  for (const std::string part : {"before_proj", "after_proj"})
    names.add_layer("control_blocks.*." + part, "control_blocks.*." + part);
  return names;
}

std::string control_copy_of(const std::string& hf_control) {
  if (hf_control == "patch_embed_base.proj.weight") return "patch_embed.proj.weight";
  for (const char* part : {"time_embed.", "crossattn_proj.", "img_context_proj.",
                           "learnable_pos_embed.", "view_embeddings."})
    if (hf_control.rfind(part, 0) == 0) return hf_control;
  return "";
}

Json control_config_of(const LazyTensors& tensors, const DitConfig& base,
                       const std::string& where) {
  int64_t blocks = 0;
  while (tensors.count("control_blocks." + std::to_string(blocks) + ".attn1.to_q.weight")) ++blocks;
  const auto patch = tensors.find("patch_embed.proj.weight");
  require(blocks > 0 && patch != tensors.end() && patch->second.shape.size() == 2, where,
          ": not a whole control branch");
  const int64_t cells = base.patch_size[0] * base.patch_size[1] * base.patch_size[2];
  return {{"_class_name", "CosmosControlNetModel"},
          {"n_controlnet_blocks", blocks},
          {"in_channels", patch->second.shape[1] / cells},
          {"latent_channels", base.in_channels + 1},
          {"model_channels", base.hidden_size()},
          {"num_attention_heads", base.num_attention_heads},
          {"attention_head_dim", base.attention_head_dim},
          {"mlp_ratio", base.mlp_ratio},
          {"text_embed_dim", base.text_embed_dim},
          {"adaln_lora_dim", base.adaln_lora_dim},
          {"patch_size", base.patch_size},
          {"max_size", base.max_size},
          {"rope_scale", base.rope_scale},
          {"extra_pos_embed_type",
           base.extra_pos_embed_type ? Json(*base.extra_pos_embed_type) : Json(nullptr)},
          {"img_context_dim_in",
           base.img_context_dim_in ? Json(*base.img_context_dim_in) : Json(nullptr)},
          {"img_context_dim_out", base.img_context_dim_out},
          {"use_crossattn_projection", base.use_crossattn_projection},
          {"crossattn_proj_in_channels", base.crossattn_proj_in_channels},
          {"encoder_hidden_states_channels", base.encoder_hidden_states_channels}};
}

}  // namespace cosmos::modules
