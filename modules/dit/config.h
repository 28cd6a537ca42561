#pragma once

// config.json of CosmosTransformer3DModel (diffusers 0.42): same keys, same defaults.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {

struct DitConfig {
  int64_t in_channels = 16;  ///< latents + condition mask; the padding mask is not counted
  int64_t out_channels = 16;
  int64_t num_attention_heads = 32;
  int64_t attention_head_dim = 128;
  int64_t num_layers = 28;
  double mlp_ratio = 4.0;
  int64_t text_embed_dim = 1024;
  int64_t adaln_lora_dim = 256;
  std::vector<int64_t> max_size = {128, 240, 240};   ///< latent frames, rows, columns
  std::vector<int64_t> patch_size = {1, 2, 2};       ///< frames, rows, columns
  std::vector<double> rope_scale = {2.0, 1.0, 1.0};  ///< frames, rows, columns
  bool concat_padding_mask = true;
  std::optional<std::string> extra_pos_embed_type = "learnable";  ///< "learnable" or null
  bool use_crossattn_projection = false;
  int64_t crossattn_proj_in_channels = 1024;
  int64_t encoder_hidden_states_channels = 1024;
  std::optional<int64_t> controlnet_block_every_n;
  std::optional<int64_t> img_context_dim_in;  ///< null or 0: no image context
  int64_t img_context_num_tokens = 256;
  int64_t img_context_dim_out = 2048;

  Json extra =
      Json::object();  ///< keys of the file that are not listed above, written back as read

  template <typename Visitor>
  void fields(Visitor& v) {
    v("in_channels", in_channels, "latent channels plus condition mask");
    v("out_channels", out_channels, "latent channels predicted");
    v("num_attention_heads", num_attention_heads, "heads");
    v("attention_head_dim", attention_head_dim, "width of a head");
    v("num_layers", num_layers, "transformer blocks");
    v("mlp_ratio", mlp_ratio, "hidden width of the MLP over the model's width");
    v("text_embed_dim", text_embed_dim, "width of the text that cross-attention reads");
    v("adaln_lora_dim", adaln_lora_dim, "rank of the modulation's two products");
    v("max_size", max_size, "largest latent: frames, rows, columns");
    v("patch_size", patch_size, "patch: frames, rows, columns");
    v("rope_scale", rope_scale, "NTK factors of RoPE: frames, rows, columns");
    v("concat_padding_mask", concat_padding_mask, "padding mask as one more input channel");
    v("extra_pos_embed_type", extra_pos_embed_type, "learnable, or null for RoPE alone");
    v("use_crossattn_projection", use_crossattn_projection, "project text before the blocks");
    v("crossattn_proj_in_channels", crossattn_proj_in_channels, "width of the text given");
    v("encoder_hidden_states_channels", encoder_hidden_states_channels, "width after projection");
    v("controlnet_block_every_n", controlnet_block_every_n, "blocks between control residuals");
    v("img_context_dim_in", img_context_dim_in, "width of the image features given");
    v("img_context_num_tokens", img_context_num_tokens, "image features per sample (not checked)");
    v("img_context_dim_out", img_context_dim_out, "width after projection");
  }

  int64_t hidden_size() const { return num_attention_heads * attention_head_dim; }
  bool has_image_context() const { return img_context_dim_in && *img_context_dim_in > 0; }
  bool has_learnable_positions() const { return extra_pos_embed_type.has_value(); }
  /// Blocks that take a control residual: 0, n, 2n, ... below num_layers; 0 when there is no n.
  int64_t num_control_residuals() const;

  /// Reads and checks; `where` names the file in errors. Throws Error on a wrong type or a value no
  /// model can have.
  static DitConfig from_json(const Json& json, const std::string& where);
  /// Every key, `_class_name` and what the file held besides.
  Json to_json() const;
  void check(const std::string& where) const;
};

}  // namespace cosmos::modules
