#pragma once

// Mirror of a T5 config.json (transformers T5Config): the keys that its encoder reads.

#include <string>

#include "modules/core/fields.h"

namespace cosmos::modules {

struct T5Config {
  int64_t vocab_size = 32128;
  int64_t d_model = 512;
  int64_t d_kv = 64;
  int64_t d_ff = 2048;
  int64_t num_layers = 6;
  int64_t num_heads = 8;
  int64_t relative_attention_num_buckets = 32;
  int64_t relative_attention_max_distance = 128;
  double dropout_rate = 0.1;
  double layer_norm_epsilon = 1e-6;
  double initializer_factor = 1.0;
  std::string feed_forward_proj = "relu";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("vocab_size", vocab_size, "rows of the embedding");
    v("d_model", d_model, "width");
    v("d_kv", d_kv, "width of a head; heads need not fill d_model");
    v("d_ff", d_ff, "width of the MLP");
    v("num_layers", num_layers, "blocks of the encoder");
    v("num_heads", num_heads, "attention heads");
    v("relative_attention_num_buckets", relative_attention_num_buckets,
      "rows of the position bias");
    v("relative_attention_max_distance", relative_attention_max_distance,
      "distances from here on share a bucket");
    v("dropout_rate", dropout_rate, "of training");
    v("layer_norm_epsilon", layer_norm_epsilon, "of every norm");
    v("initializer_factor", initializer_factor, "scale of fresh weights");
    v("feed_forward_proj", feed_forward_proj, "relu, gelu, gelu_new or silu, or gated- with one");
  }

  /// Whether the MLP is act(wi_0 x) * wi_1 x.
  bool gated() const { return feed_forward_proj.starts_with("gated-"); }
  /// relu, gelu, gelu_new or silu. "gated-gelu" has always meant gelu_new.
  std::string activation() const;
  /// Throws Error on values that make no network; `where` names the file.
  void check(const std::string& where) const;
};

}  // namespace cosmos::modules
