#pragma once

// config.json of CosmosControlNetModel (diffusers 0.42): same keys, same defaults.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "modules/dit/config.h"

namespace cosmos::modules {

struct ControlNetConfig {
  int64_t n_controlnet_blocks = 4;
  int64_t in_channels = 130;     ///< control latents, condition mask and padding mask
  int64_t latent_channels = 18;  ///< of the base: latents, condition mask and padding mask
  int64_t model_channels = 2048;
  int64_t num_attention_heads = 32;
  int64_t attention_head_dim = 128;
  double mlp_ratio = 4.0;
  int64_t text_embed_dim = 1024;
  int64_t adaln_lora_dim = 256;
  std::vector<int64_t> patch_size = {1, 2, 2};       ///< frames, rows, columns
  std::vector<int64_t> max_size = {128, 240, 240};   ///< latent frames, rows, columns
  std::vector<double> rope_scale = {2.0, 1.0, 1.0};  ///< frames, rows, columns
  std::optional<std::string> extra_pos_embed_type;   ///< "learnable" or null
  std::optional<int64_t> img_context_dim_in;         ///< null or 0: no image context
  int64_t img_context_dim_out = 2048;
  bool use_crossattn_projection = false;
  int64_t crossattn_proj_in_channels = 1024;
  int64_t encoder_hidden_states_channels = 1024;

  Json extra = Json::object();  ///< other keys of the file, written back as read

  template <typename Visitor>
  void fields(Visitor& v) {
    v("n_controlnet_blocks", n_controlnet_blocks, "control blocks");
    v("in_channels", in_channels, "control latents, condition mask and padding mask");
    v("latent_channels", latent_channels, "the base's latents, condition mask and padding mask");
    v("model_channels", model_channels, "width");
    v("num_attention_heads", num_attention_heads, "heads");
    v("attention_head_dim", attention_head_dim, "width of a head");
    v("mlp_ratio", mlp_ratio, "hidden width of the MLP over the model's width");
    v("text_embed_dim", text_embed_dim, "width of the text that cross-attention reads");
    v("adaln_lora_dim", adaln_lora_dim, "rank of the modulation's two products");
    v("patch_size", patch_size, "patch: frames, rows, columns");
    v("max_size", max_size, "largest latent: frames, rows, columns");
    v("rope_scale", rope_scale, "NTK factors of RoPE: frames, rows, columns");
    v("extra_pos_embed_type", extra_pos_embed_type, "learnable, or null for RoPE alone");
    v("img_context_dim_in", img_context_dim_in, "width of the image features given");
    v("img_context_dim_out", img_context_dim_out, "width after projection");
    v("use_crossattn_projection", use_crossattn_projection, "project text before the blocks");
    v("crossattn_proj_in_channels", crossattn_proj_in_channels, "width of the text given");
    v("encoder_hidden_states_channels", encoder_hidden_states_channels, "width after projection");
  }

  /// Channels that control latents are filled up to with zeros.
  int64_t control_channels() const { return in_channels - 2; }

  /// The blocks, and everything around them that the base has too, as the base's config spells it.
  DitConfig dit_config() const;

  /// The control net of a base: same sizes, `blocks` control blocks, room for `control_channels`.
  static ControlNetConfig of_base(const DitConfig& base, int64_t blocks, int64_t control_channels);

  /// Reads and checks; `where` names the file in errors. Throws Error on a wrong type or a value no
  /// model can have.
  static ControlNetConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;
  void check(const std::string& where) const;
};

}  // namespace cosmos::modules
