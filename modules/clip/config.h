#pragma once

// Mirror of the config.json of a CLIP image tower (transformers CLIPVisionConfig).

#include <string>

#include "modules/core/fields.h"

namespace cosmos::modules {

struct ClipVisionConfig {
  int64_t hidden_size = 768;
  int64_t intermediate_size = 3072;
  int64_t projection_dim = 512;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t num_channels = 3;
  int64_t image_size = 224;
  int64_t patch_size = 32;
  std::string hidden_act = "quick_gelu";
  double layer_norm_eps = 1e-5;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("hidden_size", hidden_size, "width");
    v("intermediate_size", intermediate_size, "width of the MLP");
    v("projection_dim", projection_dim, "width of an embedding");
    v("num_hidden_layers", num_hidden_layers, "blocks");
    v("num_attention_heads", num_attention_heads, "attention heads");
    v("num_channels", num_channels, "of a picture: 3");
    v("image_size", image_size, "height and width of a picture");
    v("patch_size", patch_size, "edge of a patch");
    v("hidden_act", hidden_act, "quick_gelu (x sigmoid(1.702 x)) or gelu");
    v("layer_norm_eps", layer_norm_eps, "of every norm");
  }

  /// Patches of a picture.
  int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }

  /// Reads and checks a tower's own config, or the `vision_config` of a whole CLIPModel, whose
  /// projection_dim counts then. Throws Error naming `where` and the setting.
  static ClipVisionConfig from_json(const Json& json, const std::string& where);
};

}  // namespace cosmos::modules
