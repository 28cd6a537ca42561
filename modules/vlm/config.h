#pragma once

// config.json of the language models that Cosmos Reason is made of (transformers 5.23): same keys,
// same defaults.

#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {

/// What differs between the classes beyond sizes.
enum class LmFamily { kLlama, kQwen2, kQwen3, kQwen3Moe, kQwen25Vl, kQwen3Vl, kQwen3VlMoe };

/// The language model: text_config of a vision-language model, or the whole config.json of a
/// ForCausalLM class.
struct TextConfig {
  int64_t vocab_size = 151936;
  int64_t hidden_size = 4096;
  int64_t intermediate_size = 22016;
  int64_t num_hidden_layers = 32;
  int64_t num_attention_heads = 32;
  std::optional<int64_t> num_key_value_heads = 32;  ///< null: as many as attention heads
  std::optional<int64_t> head_dim;                  ///< null: hidden_size / num_attention_heads
  std::string hidden_act = "silu";
  double rms_norm_eps = 1e-6;
  int64_t max_position_embeddings = 32768;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool use_sliding_window = false;
  std::optional<int64_t> pad_token_id;  ///< its embedding gets no gradient
  Json rope_parameters = nullptr;       ///< rope_theta, rope_type, mrope_section, ...
  Json rope_scaling = nullptr;          ///< what older files call rope_parameters
  std::optional<double> rope_theta;     ///< older files: beside rope_scaling
  // Mixture of experts.
  int64_t moe_intermediate_size = 768;
  int64_t num_experts = 128;
  std::optional<int64_t> num_local_experts;  ///< what newer files call num_experts
  int64_t num_experts_per_tok = 8;
  bool norm_topk_prob = false;
  int64_t decoder_sparse_step = 1;
  std::optional<std::vector<int64_t>> mlp_only_layers;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("vocab_size", vocab_size, "tokens");
    v("hidden_size", hidden_size, "width");
    v("intermediate_size", intermediate_size, "hidden width of a dense MLP");
    v("num_hidden_layers", num_hidden_layers, "decoder layers");
    v("num_attention_heads", num_attention_heads, "query heads");
    v("num_key_value_heads", num_key_value_heads, "key and value heads");
    v("head_dim", head_dim, "width of a head");
    v("hidden_act", hidden_act, "silu");
    v("rms_norm_eps", rms_norm_eps, "epsilon of every RMSNorm");
    v("max_position_embeddings", max_position_embeddings, "longest sequence");
    v("initializer_range", initializer_range, "deviation of fresh weights");
    v("tie_word_embeddings", tie_word_embeddings, "the head's weight is the embedding's");
    v("attention_bias", attention_bias, "bias in q, k, v and o");
    v("mlp_bias", mlp_bias, "bias in the MLP (Llama)");
    v("use_sliding_window", use_sliding_window, "not supported");
    v("pad_token_id", pad_token_id, "token whose embedding gets no gradient");
    v("rope_parameters", rope_parameters, "rotary positions");
    v("rope_scaling", rope_scaling, "rotary positions, in older files");
    v("rope_theta", rope_theta, "base of the rotary frequencies, in older files");
    v("moe_intermediate_size", moe_intermediate_size, "hidden width of an expert");
    v("num_experts", num_experts, "experts of a layer");
    v("num_local_experts", num_local_experts, "experts of a layer, in newer files");
    v("num_experts_per_tok", num_experts_per_tok, "experts that a token goes to");
    v("norm_topk_prob", norm_topk_prob, "weights of a token's experts add to 1");
    v("decoder_sparse_step", decoder_sparse_step, "every n-th layer has experts");
    v("mlp_only_layers", mlp_only_layers, "layers without experts");
  }

  int64_t kv_heads() const { return num_key_value_heads.value_or(num_attention_heads); }
  int64_t head_size() const { return head_dim.value_or(hidden_size / num_attention_heads); }
  int64_t experts() const { return num_local_experts.value_or(num_experts); }
};

/// vision_config.
struct VisionConfig {
  int64_t depth = 27;
  int64_t hidden_size = 1152;
  std::string hidden_act = "gelu_pytorch_tanh";
  int64_t intermediate_size = 4304;
  int64_t num_heads = 16;
  int64_t in_channels = 3;
  int64_t patch_size = 16;
  int64_t spatial_merge_size = 2;
  int64_t temporal_patch_size = 2;
  int64_t out_hidden_size = 3584;
  double initializer_range = 0.02;
  Json rope_parameters = nullptr;
  // Qwen2.5-VL
  int64_t tokens_per_second = 4;
  int64_t window_size = 112;
  std::vector<int64_t> fullatt_block_indexes = {7, 15, 23, 31};
  // Qwen3-VL
  int64_t num_position_embeddings = 2304;
  std::vector<int64_t> deepstack_visual_indexes = {8, 16, 24};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("depth", depth, "blocks");
    v("hidden_size", hidden_size, "width");
    v("hidden_act", hidden_act, "activation of the MLP");
    v("intermediate_size", intermediate_size, "hidden width of the MLP");
    v("num_heads", num_heads, "heads");
    v("in_channels", in_channels, "colours");
    v("patch_size", patch_size, "pixels of a patch's side");
    v("spatial_merge_size", spatial_merge_size, "patches of a merged token's side");
    v("temporal_patch_size", temporal_patch_size, "frames of a patch");
    v("out_hidden_size", out_hidden_size, "width of the language model");
    v("initializer_range", initializer_range, "deviation of fresh weights");
    v("rope_parameters", rope_parameters, "rotary positions");
    v("tokens_per_second", tokens_per_second, "temporal positions of a second (Qwen2.5-VL)");
    v("window_size", window_size, "pixels of an attention window's side (Qwen2.5-VL)");
    v("fullatt_block_indexes", fullatt_block_indexes, "blocks without windows (Qwen2.5-VL)");
    v("num_position_embeddings", num_position_embeddings, "learned positions (Qwen3-VL)");
    v("deepstack_visual_indexes", deepstack_visual_indexes, "blocks for DeepStack (Qwen3-VL)");
  }

  int64_t merge_unit() const { return spatial_merge_size * spatial_merge_size; }
  int64_t patch_features() const {
    return in_channels * temporal_patch_size * patch_size * patch_size;
  }
  double rope_theta() const;
};

/// How token positions turn queries and keys.
struct RopeConfig {
  double theta = 1e4;
  std::string type = "default";   ///< default, linear or llama3
  std::vector<int64_t> sections;  ///< frequencies of time, height, width; add to head / 2
  bool interleaved = false;       ///< axes take turns (Qwen3-VL)
  double factor = 1;              ///< linear, llama3
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  double original_max_position_embeddings = 8192;    ///< llama3
};

struct LanguageModelConfig {
  LmFamily family = LmFamily::kQwen3Vl;
  std::string class_name;
  TextConfig text;
  VisionConfig vision;  ///< of the vision-language families
  int64_t image_token_id = 151655;
  int64_t video_token_id = 151656;
  int64_t vision_start_token_id = 151652;
  int64_t vision_end_token_id = 151653;
  Json source = Json::object();  ///< the file, written back as read

  bool has_vision() const {
    return family == LmFamily::kQwen25Vl || family == LmFamily::kQwen3Vl ||
           family == LmFamily::kQwen3VlMoe;
  }
  bool has_qk_norm() const { return family != LmFamily::kLlama && !has_qwen2_attention(); }
  /// Qwen2: bias in q, k and v, none in o, heads not normed.
  bool has_qwen2_attention() const {
    return family == LmFamily::kQwen2 || family == LmFamily::kQwen25Vl;
  }
  bool qkv_bias() const { return has_qwen2_attention() || text.attention_bias; }
  bool output_bias() const { return !has_qwen2_attention() && text.attention_bias; }
  /// Whether a token's expert weights add to 1: always in Qwen3-VL.
  bool normalizes_experts() const { return family == LmFamily::kQwen3VlMoe || text.norm_topk_prob; }
  bool is_sparse(int64_t layer) const;
  RopeConfig rope() const;

  /// Reads and checks the config of `class_name` (Qwen3VLForConditionalGeneration, ...); `where`
  /// names the file in errors. Throws Error on a wrong type or a value no model can have.
  static LanguageModelConfig from_json(const std::string& class_name, const Json& json,
                                       const std::string& where);
  /// The file as read, with `architectures`.
  Json to_json() const;
};

}  // namespace cosmos::modules
