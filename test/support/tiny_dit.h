#pragma once

// The config of the smallest DiT that the tests of whole programs and recipes run on.

#include "modules/core/fields.h"

namespace cosmos::test {

/// Latents of four channels and a mask, text of width 8.
inline Json tiny_dit_json(int64_t layers = 1) {
  return {{"_class_name", "CosmosTransformer3DModel"},
          {"in_channels", 5},
          {"out_channels", 4},
          {"num_attention_heads", 2},
          {"attention_head_dim", 12},
          {"num_layers", layers},
          {"mlp_ratio", 2.0},
          {"text_embed_dim", 8},
          {"adaln_lora_dim", 4},
          {"max_size", {8, 16, 16}},
          {"extra_pos_embed_type", nullptr}};
}

}  // namespace cosmos::test
