#include "modules/text/t5/config.h"

namespace cosmos::modules {

std::string T5Config::activation() const {
  if (feed_forward_proj == "gated-gelu") return "gelu_new";
  return gated() ? feed_forward_proj.substr(6) : feed_forward_proj;
}

void T5Config::check(const std::string& where) const {
  const std::pair<const char*, int64_t> sizes[] = {
      {"vocab_size", vocab_size},
      {"d_model", d_model},
      {"d_kv", d_kv},
      {"d_ff", d_ff},
      {"num_layers", num_layers},
      {"num_heads", num_heads},
      {"relative_attention_num_buckets", relative_attention_num_buckets},
      {"relative_attention_max_distance", relative_attention_max_distance}};
  for (const auto& [key, size] : sizes)
    require(size > 0, where, ": ", key, ": expected a positive number, got ", size);
  require(relative_attention_num_buckets % 4 == 0, where,
          ": relative_attention_num_buckets: expected a multiple of 4, got ",
          relative_attention_num_buckets);
  require(relative_attention_max_distance > relative_attention_num_buckets / 4, where,
          ": relative_attention_max_distance: expected more than ",
          relative_attention_num_buckets / 4, " (a quarter of the buckets), got ",
          relative_attention_max_distance);
  const std::string name = activation();
  require(name == "relu" || name == "gelu" || name == "gelu_new" || name == "silu", where,
          ": feed_forward_proj: expected relu, gelu, gelu_new or silu, or gated- with one of them, "
          "got ",
          feed_forward_proj);
}

}  // namespace cosmos::modules
