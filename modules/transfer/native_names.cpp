#include "modules/transfer/native_names.h"

#include "modules/dit/native_names.h"
#include "modules/transfer/transfer1_config.h"

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

NameMap transfer1_native_names() {
  NameMap names = predict1_stem_names();
  names.add("x_embedder2.proj.1.weight", "patch_embed_hint.proj.weight");
  names.add("blocks.block*", "control_blocks.*", dit_block_names(DitGeneration::kPredict1));
  names.add_layer("zero_blocks.block*", "zero_blocks.*");
  names.add_layer("input_hint_block.*", "hint_embed.*");
  return names;
}

std::string transfer1_superfluous(const std::string& native) {
  return native.rfind("final_layer.", 0) == 0 ? "head of a whole network, which a branch has not"
                                              : dit_superfluous(native);
}

Json transfer1_config_of(const LazyTensors& tensors, const std::string& where) {
  const auto shape = [&](const std::string& name, std::size_t rank) {
    const auto found = tensors.find(name);
    require(found != tensors.end(), where, ": ", name, " is missing; not a whole control branch");
    require(found->second.shape.size() == rank, where, ": ", name, ": expected ", rank,
            " dimensions, got ", c10::IntArrayRef(found->second.shape));
    return found->second.shape;
  };
  const std::string block = "control_blocks.0.";
  Transfer1Config c;
  const int64_t cells = c.patch_size[0] * c.patch_size[1] * c.patch_size[2];
  const int64_t width = shape("patch_embed.proj.weight", 2)[0];
  c.in_channels = shape("patch_embed.proj.weight", 2)[1] / cells - 1;
  c.hint_channels = shape("patch_embed_hint.proj.weight", 2)[1] / cells - 1;
  c.attention_head_dim = shape(block + "attn1.norm_q.weight", 1)[0];
  require(c.attention_head_dim > 0 && width > 0, where, ": norms and stem of width 0");
  c.num_attention_heads = width / c.attention_head_dim;
  c.mlp_ratio =
      static_cast<double>(shape(block + "ff.net.0.proj.weight", 2)[0]) / static_cast<double>(width);
  c.text_embed_dim = shape(block + "attn2.to_k.weight", 2)[1];
  c.adaln_lora_dim = shape(block + "norm1.linear_1.weight", 2)[0];
  c.num_control_blocks = 0;
  while (tensors.count("zero_blocks." + std::to_string(c.num_control_blocks) + ".weight"))
    ++c.num_control_blocks;
  c.hint_widths.clear();
  const auto product = [](std::size_t i) {
    return "hint_embed." + std::to_string(2 * i) + ".weight";
  };
  for (std::size_t i = 0; tensors.count(product(i + 1)); ++i)
    c.hint_widths.push_back(shape(product(i), 2)[0]);
  c.extra_pos_embed_type.reset();
  if (tensors.count("learnable_pos_embed.pos_emb_t")) {
    c.extra_pos_embed_type = "learnable";
    const char* axes[] = {"t", "h", "w"};
    for (std::size_t i = 0; i < 3; ++i)
      c.max_size[i] =
          c.patch_size[i] * shape(std::string("learnable_pos_embed.pos_emb_") + axes[i], 2)[0];
  }
  c.check(where);
  return c.to_json();
}

}  // namespace cosmos::modules
