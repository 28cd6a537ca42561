// adapter_config.json of peft 0.21.

#include "modules/hub/atomic_file.h"
#include "modules/lora/adapter_file.h"

namespace cosmos::modules {
namespace {

// Every key that peft 0.21 writes for LoRA, with its default.
Json defaults() {
  return {{"alora_invocation_tokens", nullptr},
          {"alpha_pattern", Json::object()},
          {"arrow_config", nullptr},
          {"auto_mapping", nullptr},
          {"base_model_name_or_path", nullptr},
          {"bias", "none"},
          {"corda_config", nullptr},
          {"ensure_weight_tying", false},
          {"eva_config", nullptr},
          {"exclude_modules", nullptr},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"kasa_config", nullptr},
          {"layer_replication", nullptr},
          {"layers_pattern", nullptr},
          {"layers_to_transform", nullptr},
          {"loftq_config", Json::object()},
          {"lora_alpha", 8},
          {"lora_bias", false},
          {"lora_dropout", 0.0},
          {"lora_ga_config", nullptr},
          {"megatron_config", nullptr},
          {"megatron_core", "megatron.core"},
          {"modules_to_save", nullptr},
          {"monteclora_config", nullptr},
          {"peft_type", "LORA"},
          {"peft_version", "0.21.2"},
          {"qalora_group_size", 16},
          {"r", 8},
          {"rank_pattern", Json::object()},
          {"revision", nullptr},
          {"target_modules", nullptr},
          {"target_parameters", nullptr},
          {"task_type", nullptr},
          {"trainable_token_indices", nullptr},
          {"use_bdlora", nullptr},
          {"use_dora", false},
          {"use_qalora", false},
          {"use_rslora", false},
          {"velora_config", nullptr}};
}

// Keys that we read, or that say nothing about what the weights compute. Which modules an adapter
// covers is told by its tensors, so the keys that select layers are of no consequence here.
bool is_harmless(const std::string& key) {
  static const char* kKeys[] = {"alpha_pattern",
                                "auto_mapping",
                                "base_model_name_or_path",
                                "exclude_modules",
                                "inference_mode",
                                "init_lora_weights",
                                "layers_pattern",
                                "layers_to_transform",
                                "lora_alpha",
                                "lora_dropout",
                                "megatron_core",
                                "peft_type",
                                "peft_version",
                                "qalora_group_size",
                                "r",
                                "rank_pattern",
                                "revision",
                                "runtime_config",
                                "target_modules",
                                "target_parameters",
                                "task_type",
                                "use_dora",
                                "use_rslora",
                                "ensure_weight_tying"};
  for (const char* known : kKeys)
    if (key == known) return true;
  return false;
}

bool is_off(const Json& value) {
  return value.is_null() || value == false || value == "none" ||
         (value.is_structured() && value.empty());
}

// PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base's weights; the adapter alone is not the
// model.
void check_init(const Json& json, const std::string& where) {
  const Json init = json.value("init_lora_weights", Json(true));
  const bool plain =
      init.is_boolean() || init == "gaussian" || init == "orthogonal" || init == "eva";
  require(plain, where, ".init_lora_weights: ", describe(init),
          " changes the base model's weights and is ",
          "not supported; convert the adapter to plain LoRA with PEFT first");
}

// PEFT's spelling of our fields.
struct PeftFields {
  LoraConfig config;
  template <typename Visitor>
  void fields(Visitor& v) {
    v("r", config.rank);
    v("lora_alpha", config.alpha);
    v("lora_dropout", config.dropout);
    v("use_rslora", config.use_rslora);
    v("use_dora", config.use_dora);
    v("target_modules", config.target_modules);
    v("exclude_modules", config.exclude_modules);
    v("target_parameters", config.target_parameters);
    v("rank_pattern", config.rank_pattern);
    v("alpha_pattern", config.alpha_pattern);
  }
};

}  // namespace

LoraConfig lora_config_from_peft(const Json& json, const std::string& where) {
  require(json.is_object(), where, ": expected an object, got ", describe(json));
  const Json type = json.value("peft_type", Json("LORA"));
  require(type == "LORA", where, ".peft_type: only LORA is supported, got ", describe(type));
  for (const auto& [key, value] : json.items())
    require(is_harmless(key) || is_off(value) || defaults().value(key, Json()) == value, where, ".",
            printable(key), " = ", describe(value), " is not supported");
  check_init(json, where);
  PeftFields fields;
  Json given = json;
  if (json.value("target_parameters", Json()).is_null()) given.erase("target_parameters");
  read_fields(given, fields, where, UnknownKeys::kKeep);
  if (fields.config.target_modules.is_null()) fields.config.target_modules = "all-linear";
  fields.config.check(where);
  return fields.config;
}

Json lora_config_to_peft(const LoraConfig& config) {
  PeftFields fields{config};
  Json json = defaults();
  json.update(write_fields(fields));
  if (config.target_parameters.empty()) json["target_parameters"] = nullptr;
  // PEFT writes whole alphas as integers.
  const auto whole = [](Json& value) {
    const double number = value.get<double>();
    if (number == static_cast<double>(static_cast<int64_t>(number)))
      value = static_cast<int64_t>(number);
  };
  whole(json["lora_alpha"]);
  for (auto& value : json["alpha_pattern"]) whole(value);
  return json;
}

}  // namespace cosmos::modules
