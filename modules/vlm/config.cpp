#include "modules/vlm/config.h"

#include <algorithm>

namespace cosmos::modules {
namespace {

struct ClassEntry {
  const char* name;
  LmFamily family;
  const char* model_type;
};

constexpr ClassEntry kClasses[] = {
    {"LlamaForCausalLM", LmFamily::kLlama, "llama"},
    {"Qwen2ForCausalLM", LmFamily::kQwen2, "qwen2"},
    {"Qwen3ForCausalLM", LmFamily::kQwen3, "qwen3"},
    {"Qwen3MoeForCausalLM", LmFamily::kQwen3Moe, "qwen3_moe"},
    {"Qwen2_5_VLForConditionalGeneration", LmFamily::kQwen25Vl, "qwen2_5_vl"},
    {"Qwen3VLForConditionalGeneration", LmFamily::kQwen3Vl, "qwen3_vl"},
    {"Qwen3VLMoeForConditionalGeneration", LmFamily::kQwen3VlMoe, "qwen3_vl_moe"},
};

const ClassEntry& class_entry(const std::string& class_name, const std::string& where) {
  for (const auto& entry : kClasses)
    if (class_name == entry.name) return entry;
  fail(where, ": ", class_name, " is no language model known here");
}

// Where a class's defaults differ from those in the header.
TextConfig text_defaults(LmFamily family) {
  TextConfig text;
  switch (family) {
    case LmFamily::kLlama:
      text.vocab_size = 32000;
      text.intermediate_size = 11008;
      text.num_key_value_heads.reset();
      text.max_position_embeddings = 2048;
      break;
    case LmFamily::kQwen2:
      break;
    case LmFamily::kQwen3:
      text.head_dim = 128;
      break;
    case LmFamily::kQwen3Moe:
      text.hidden_size = 2048;
      text.intermediate_size = 6144;
      text.num_hidden_layers = 24;
      text.num_key_value_heads = 4;
      break;
    case LmFamily::kQwen25Vl:
      text.vocab_size = 152064;
      text.hidden_size = 8192;
      text.intermediate_size = 29568;
      text.num_hidden_layers = 80;
      text.num_attention_heads = 64;
      text.num_key_value_heads = 8;
      text.rms_norm_eps = 1e-5;
      break;
    case LmFamily::kQwen3Vl:
      text.head_dim = 128;
      text.max_position_embeddings = 128000;
      break;
    case LmFamily::kQwen3VlMoe:
      text.hidden_size = 2048;
      text.intermediate_size = 5632;
      text.num_hidden_layers = 24;
      text.num_attention_heads = 16;
      text.num_key_value_heads = 16;
      text.max_position_embeddings = 128000;
      text.moe_intermediate_size = 1408;
      text.num_experts = 60;
      text.num_experts_per_tok = 4;
      break;
  }
  return text;
}

VisionConfig vision_defaults(LmFamily family) {
  VisionConfig vision;
  if (family != LmFamily::kQwen25Vl) return vision;
  vision.depth = 32;
  vision.hidden_size = 3584;
  vision.hidden_act = "silu";
  vision.intermediate_size = 3420;
  vision.patch_size = 14;
  return vision;
}

double default_theta(LmFamily family) {
  switch (family) {
    case LmFamily::kQwen25Vl:
      return 1e6;
    case LmFamily::kQwen3Vl:
    case LmFamily::kQwen3VlMoe:
      return 5e5;
    default:
      return 1e4;
  }
}

using Positive = std::initializer_list<std::pair<const char*, int64_t>>;

void check_positive(Positive values, const std::string& where) {
  for (const auto& [key, value] : values)
    require(value > 0, where, ": ", key, ": expected a positive number, got ", value);
}

void check_text(const LanguageModelConfig& config, const std::string& where) {
  const TextConfig& text = config.text;
  check_positive({{"vocab_size", text.vocab_size},
                  {"hidden_size", text.hidden_size},
                  {"intermediate_size", text.intermediate_size},
                  {"num_attention_heads", text.num_attention_heads},
                  {"num_key_value_heads", text.kv_heads()},
                  {"head_dim", text.head_size()}},
                 where);
  require(text.num_hidden_layers >= 0, where, ": num_hidden_layers: expected 0 or more, got ",
          text.num_hidden_layers);
  require(text.num_attention_heads % text.kv_heads() == 0, where,
          ": num_attention_heads: expected a multiple of num_key_value_heads ", text.kv_heads(),
          ", got ", text.num_attention_heads);
  require(text.head_size() % 2 == 0, where, ": head_dim: expected an even number, got ",
          text.head_size());
  require(text.hidden_act == "silu", where, ": hidden_act: expected silu, got ", text.hidden_act);
  require(!text.use_sliding_window, where,
          ": use_sliding_window: sliding windows are not supported, set it to false");
  const bool sparse =
      config.family == LmFamily::kQwen3Moe || config.family == LmFamily::kQwen3VlMoe;
  if (!sparse) return;
  check_positive({{"moe_intermediate_size", text.moe_intermediate_size},
                  {"num_experts", text.experts()},
                  {"decoder_sparse_step", text.decoder_sparse_step},
                  {"num_experts_per_tok", text.num_experts_per_tok}},
                 where);
  require(text.num_experts_per_tok <= text.experts(), where,
          ": num_experts_per_tok: expected at most num_experts ", text.experts(), ", got ",
          text.num_experts_per_tok);
}

void check_vision(const LanguageModelConfig& config, const std::string& where) {
  const VisionConfig& vision = config.vision;
  check_positive({{"hidden_size", vision.hidden_size},
                  {"intermediate_size", vision.intermediate_size},
                  {"num_heads", vision.num_heads},
                  {"in_channels", vision.in_channels},
                  {"patch_size", vision.patch_size},
                  {"spatial_merge_size", vision.spatial_merge_size},
                  {"temporal_patch_size", vision.temporal_patch_size}},
                 where);
  require(vision.depth >= 0, where, ": depth: expected 0 or more, got ", vision.depth);
  require(vision.hidden_size % (4 * vision.num_heads) == 0, where,
          ": hidden_size: RoPE over rows and columns needs a multiple of 4 num_heads = ",
          4 * vision.num_heads, ", got ", vision.hidden_size);
  require(vision.out_hidden_size == config.text.hidden_size, where,
          ": out_hidden_size: the language model reads ", config.text.hidden_size,
          " (text_config.hidden_size), got ", vision.out_hidden_size);
  const bool windows = config.family == LmFamily::kQwen25Vl;
  const std::string act = windows ? "silu" : "gelu_pytorch_tanh";
  require(vision.hidden_act == act || (!windows && vision.hidden_act == "gelu"), where,
          ": hidden_act: expected ", act, ", got ", vision.hidden_act);
  if (windows)
    require(vision.window_size >= vision.patch_size * vision.spatial_merge_size, where,
            ": window_size: expected at least a merged token's side, patch_size * "
            "spatial_merge_size = ",
            vision.patch_size * vision.spatial_merge_size, ", got ", vision.window_size);
  else
    for (const int64_t index : vision.deepstack_visual_indexes)
      require(index >= 0 && index < vision.depth, where,
              ": deepstack_visual_indexes: expected blocks below depth ", vision.depth, ", got ",
              index);
}

// rope_scaling of older files carries everything but theta; rope_parameters has all.
Json rope_json(const TextConfig& text) {
  if (text.rope_scaling.is_object()) return text.rope_scaling;
  return text.rope_parameters.is_object() ? text.rope_parameters : Json::object();
}

double number(const Json& json, const char* key, double otherwise) {
  const auto found = json.find(key);
  if (found == json.end()) return otherwise;
  require(found->is_number(), "rope_parameters.", key, ": expected a number, got ",
          describe(*found));
  return found->get<double>();
}

// Qwen3-VL's sections need not add to the pairs: height takes frequencies 1, 4, 7, ... and width
// 2, 5, 8, ... below 3 times their section, time all others.
std::vector<int64_t> interleaved_sections(const std::vector<int64_t>& sections, int64_t pairs) {
  const auto count = [&](int64_t axis) {
    const int64_t fit = pairs > axis ? (pairs - axis + 2) / 3 : 0;
    return std::min(sections[axis], fit);
  };
  const int64_t height = count(1), width = count(2);
  return {pairs - height - width, height, width};
}

}  // namespace

double VisionConfig::rope_theta() const {
  return rope_parameters.is_object() ? number(rope_parameters, "rope_theta", 1e4) : 1e4;
}

bool LanguageModelConfig::is_sparse(int64_t layer) const {
  if (family != LmFamily::kQwen3Moe && family != LmFamily::kQwen3VlMoe) return false;
  const auto dense = text.mlp_only_layers.value_or(std::vector<int64_t>{});
  return std::find(dense.begin(), dense.end(), layer) == dense.end() &&
         (layer + 1) % text.decoder_sparse_step == 0;
}

RopeConfig LanguageModelConfig::rope() const {
  const Json json = rope_json(text);
  const int64_t pairs = text.head_size() / 2;
  RopeConfig rope{
      .theta = number(json, "rope_theta", text.rope_theta.value_or(default_theta(family))),
      .sections = {pairs, 0, 0}};
  rope.type = json.value("rope_type", json.value("type", std::string("default")));
  if (rope.type == "mrope") rope.type = "default";
  require(rope.type == "default" || rope.type == "linear" || rope.type == "llama3",
          "rope_parameters.rope_type: expected default, linear or llama3, got ", rope.type);
  rope.factor = number(json, "factor", 1);
  rope.low_freq_factor = number(json, "low_freq_factor", 1);
  rope.high_freq_factor = number(json, "high_freq_factor", 4);
  rope.original_max_position_embeddings = number(json, "original_max_position_embeddings",
                                                 static_cast<double>(text.max_position_embeddings));
  if (!has_vision()) return rope;
  const bool contiguous = family == LmFamily::kQwen25Vl;
  std::vector<int64_t> sections =
      contiguous ? std::vector<int64_t>{16, 24, 24} : std::vector<int64_t>{24, 20, 20};
  if (json.contains("mrope_section"))
    read_value(json["mrope_section"], sections, "rope_parameters.mrope_section",
               UnknownKeys::kKeep);
  require(sections.size() == 3 &&
              std::all_of(sections.begin(), sections.end(), [](int64_t s) { return s >= 0; }),
          "rope_parameters.mrope_section: expected 3 numbers (time, height, width), got ",
          at::IntArrayRef(sections));
  if (contiguous)
    require(sections[0] + sections[1] + sections[2] == pairs,
            "rope_parameters.mrope_section: expected numbers that add to half a head, ", pairs,
            ", got ", at::IntArrayRef(sections));
  rope.sections = contiguous ? sections : interleaved_sections(sections, pairs);
  rope.interleaved = !contiguous;
  return rope;
}

LanguageModelConfig LanguageModelConfig::from_json(const std::string& class_name, const Json& json,
                                                   const std::string& where) {
  LanguageModelConfig config;
  config.family = class_entry(class_name, where).family;
  config.class_name = class_name;
  config.source = json;
  config.text = text_defaults(config.family);
  config.vision = vision_defaults(config.family);
  // Older Qwen2.5-VL files have the text's keys beside vision_config.
  const bool nested = config.has_vision() && json.contains("text_config");
  const std::string text_where = nested ? where + ": text_config" : where;
  read_fields(nested ? json["text_config"] : json, config.text, text_where, UnknownKeys::kKeep);
  if (config.has_vision()) {
    if (json.contains("vision_config"))
      read_fields(json["vision_config"], config.vision, where + ": vision_config",
                  UnknownKeys::kKeep);
    const auto token = [&](const char* key, int64_t& value) {
      if (json.contains(key)) read_scalar(json[key], value, join_path(where + ": ", key));
    };
    token("image_token_id", config.image_token_id);
    token("video_token_id", config.video_token_id);
    token("vision_start_token_id", config.vision_start_token_id);
    token("vision_end_token_id", config.vision_end_token_id);
    // The outer key decides; Qwen2.5-VL files of old have it in text_config alone.
    bool tied = nested && config.family == LmFamily::kQwen25Vl && config.text.tie_word_embeddings;
    if (const auto found = json.find("tie_word_embeddings"); found != json.end() && !tied)
      read_scalar(*found, tied, where + ": tie_word_embeddings");
    config.text.tie_word_embeddings = tied;
    check_vision(config, where + ": vision_config");
  }
  check_text(config, text_where);
  try {
    config.rope();
  } catch (const Error& error) {
    fail(text_where, ": ", error.what());
  }
  return config;
}

Json LanguageModelConfig::to_json() const {
  Json json = source;
  if (!json.contains("architectures")) json["architectures"] = {class_name};
  for (const auto& entry : kClasses)
    if (class_name == entry.name && !json.contains("model_type"))
      json["model_type"] = entry.model_type;
  return json;
}

}  // namespace cosmos::modules
