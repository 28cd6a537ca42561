#pragma once

// config.json of CosmosTransfer1ControlNetModel. diffusers has no such class; the name and the keys
// are ours, after CosmosControlNetModel's.

#include "modules/dit/config.h"

namespace cosmos::modules {

struct Transfer1Config {
  int64_t num_control_blocks = 3;
  int64_t in_channels = 17;     ///< of the base: latents, condition mask; no padding mask
  int64_t hint_channels = 128;  ///< control latents are filled up to these
  int64_t num_attention_heads = 32;
  int64_t attention_head_dim = 128;
  double mlp_ratio = 4.0;
  int64_t text_embed_dim = 1024;
  int64_t adaln_lora_dim = 256;
  std::vector<int64_t> max_size = {128, 240, 240};   ///< latent frames, rows, columns
  std::vector<int64_t> patch_size = {1, 2, 2};       ///< frames, rows, columns
  std::vector<double> rope_scale = {2.0, 1.0, 1.0};  ///< frames, rows, columns
  std::optional<std::string> extra_pos_embed_type = "learnable";
  /// Widths between the products of the hint's stem.
  std::vector<int64_t> hint_widths = {16, 16, 32, 32, 96, 96, 256};

  Json extra = Json::object();  ///< other keys of the file, written back as read

  template <typename Visitor>
  void fields(Visitor& v) {
    v("num_control_blocks", num_control_blocks, "control blocks");
    v("in_channels", in_channels, "latents and condition mask, as the base");
    v("hint_channels", hint_channels, "room for control latents");
    v("num_attention_heads", num_attention_heads, "heads");
    v("attention_head_dim", attention_head_dim, "width of a head");
    v("mlp_ratio", mlp_ratio, "hidden width of the MLP over the model's width");
    v("text_embed_dim", text_embed_dim, "width of the text that cross-attention reads");
    v("adaln_lora_dim", adaln_lora_dim, "rank of the modulation's two products");
    v("max_size", max_size, "largest latent: frames, rows, columns");
    v("patch_size", patch_size, "patch: frames, rows, columns");
    v("rope_scale", rope_scale, "NTK factors of RoPE: frames, rows, columns");
    v("extra_pos_embed_type", extra_pos_embed_type, "learnable, or null for RoPE alone");
    v("hint_widths", hint_widths, "widths between the products of the hint's stem");
  }

  /// The blocks, and what the base has around them, as the base's config spells it.
  DitConfig dit_config() const;
  /// Reads and checks; `where` names the file in errors.
  static Transfer1Config from_json(const Json& json, const std::string& where);
  Json to_json() const;
  void check(const std::string& where) const;
};

}  // namespace cosmos::modules
