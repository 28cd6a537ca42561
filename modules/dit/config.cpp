#include "modules/dit/config.h"

namespace cosmos::modules {
namespace {

constexpr const char* kClassName = "CosmosTransformer3DModel";

void check_triple(std::size_t size, const std::string& where, const char* key) {
  require(size == 3, where, ": ", key, ": expected 3 numbers (frames, rows, columns), got ", size);
}

}  // namespace

int64_t DitConfig::num_control_residuals() const {
  if (!controlnet_block_every_n) return 0;
  return (num_layers + *controlnet_block_every_n - 1) / *controlnet_block_every_n;
}

void DitConfig::check(const std::string& where) const {
  const std::pair<const char*, int64_t> positive[] = {
      {"in_channels", in_channels},
      {"out_channels", out_channels},
      {"num_attention_heads", num_attention_heads},
      {"attention_head_dim", attention_head_dim},
      {"num_layers", num_layers},
      {"text_embed_dim", text_embed_dim},
      {"adaln_lora_dim", adaln_lora_dim},
      {"controlnet_block_every_n", controlnet_block_every_n.value_or(1)},
  };
  for (const auto& [key, value] : positive)
    require(value > 0, where, ": ", key, ": expected a positive number, got ", value);
  require(static_cast<int64_t>(hidden_size() * mlp_ratio) > 0, where,
          ": mlp_ratio: expected a positive number, got ", mlp_ratio);

  check_triple(max_size.size(), where, "max_size");
  check_triple(patch_size.size(), where, "patch_size");
  check_triple(rope_scale.size(), where, "rope_scale");
  for (int axis = 0; axis < 3; ++axis) {
    require(patch_size[axis] > 0, where, ": patch_size: expected positive numbers, got ",
            patch_size[axis]);
    require(max_size[axis] >= patch_size[axis], where, ": max_size: ", max_size[axis],
            " is smaller than a patch of ", patch_size[axis]);
    require(rope_scale[axis] > 0, where, ": rope_scale: expected positive numbers, got ",
            rope_scale[axis]);
  }

  // RoPE gives rows and columns 2 * (d / 6) numbers each and frames the rest; an axis with exactly
  // 2 has no NTK exponent d / (d - 2).
  const int64_t spatial = attention_head_dim / 6 * 2;
  require(attention_head_dim % 2 == 0 && spatial != 2 && attention_head_dim - 2 * spatial != 2,
          where, ": attention_head_dim: RoPE needs 4 or an even number from 12 up, got ",
          attention_head_dim);

  require(!extra_pos_embed_type || *extra_pos_embed_type == "learnable", where,
          ": extra_pos_embed_type: expected \"learnable\" or null, got \"",
          extra_pos_embed_type.value_or(""), "\"");
  if (use_crossattn_projection) {
    require(crossattn_proj_in_channels > 0, where,
            ": crossattn_proj_in_channels: expected a positive number, got ",
            crossattn_proj_in_channels);
    require(encoder_hidden_states_channels == text_embed_dim, where,
            ": encoder_hidden_states_channels: the projected text goes to blocks that read ",
            text_embed_dim, " channels (text_embed_dim), got ", encoder_hidden_states_channels);
  }
  if (has_image_context())
    require(img_context_dim_out == hidden_size(), where,
            ": img_context_dim_out: the image branch reads the model's width ", hidden_size(),
            ", got ", img_context_dim_out);
}

DitConfig DitConfig::from_json(const Json& json, const std::string& where) {
  DitConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  config.extra = without_fields(json, config);
  config.check(where);
  return config;
}

Json DitConfig::to_json() const {
  Json json = extra;
  json.update(write_fields(*this));
  json["_class_name"] = kClassName;
  // The version whose class this mirrors; a folder that came from another keeps its own.
  if (!json.contains("_diffusers_version")) json["_diffusers_version"] = "0.42.1";
  return json;
}

}  // namespace cosmos::modules
