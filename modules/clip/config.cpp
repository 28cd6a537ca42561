#include "modules/clip/config.h"

namespace cosmos::modules {

ClipVisionConfig ClipVisionConfig::from_json(const Json& json, const std::string& where) {
  ClipVisionConfig config;
  if (json.contains("vision_config")) {
    read_fields(json["vision_config"], config, where + ": vision_config", UnknownKeys::kKeep);
    config.projection_dim = ClipVisionConfig().projection_dim;
    if (json.contains("projection_dim"))
      read_value(json["projection_dim"], config.projection_dim, where + ": projection_dim",
                 UnknownKeys::kKeep);
  } else {
    read_fields(json, config, where, UnknownKeys::kKeep);
  }
  const std::pair<const char*, int64_t> sizes[] = {
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"projection_dim", config.projection_dim},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads},
      {"patch_size", config.patch_size}};
  for (const auto& [key, size] : sizes)
    require(size > 0, where, ": ", key, ": expected a positive number, got ", size);
  require(config.num_channels == 3, where, ": num_channels: expected 3, got ", config.num_channels);
  require(config.image_size >= config.patch_size, where, ": image_size: expected ",
          config.patch_size, " (patch_size) or more, got ", config.image_size);
  require(config.hidden_size % config.num_attention_heads == 0, where,
          ": hidden_size: expected a multiple of num_attention_heads (", config.num_attention_heads,
          "), got ", config.hidden_size);
  require(config.hidden_act == "quick_gelu" || config.hidden_act == "gelu", where,
          ": hidden_act: expected quick_gelu or gelu, got \"", config.hidden_act, "\"");
  return config;
}

}  // namespace cosmos::modules
