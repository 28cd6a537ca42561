#include <algorithm>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/lora/adapter_file.h"
#include "modules/lora/files.h"

namespace cosmos::modules {
namespace {

bool is_plain_name(const Json& entry) {
  return entry.get_ref<const std::string&>().find_first_of("*?") == std::string::npos;
}

// As Python will read it: the list of names where that is what was asked for, else every path,
// since wildcards are ours alone and two regex dialects are not one.
void settle_targets(LoraConfig& config, const Model& model) {
  const std::vector<LoraLayer> layers = lora_layers(model);
  config.target_parameters.clear();
  for (const auto& stack : lora_stacks(model)) config.target_parameters.push_back(stack.name);
  const Json& targets = config.target_modules;
  const bool names = targets.is_array() && config.exclude_modules.is_null() &&
                     std::all_of(targets.begin(), targets.end(), is_plain_name);
  if (names) return;
  Json paths = Json::array();
  for (const auto& layer : layers) paths.push_back(layer.name);
  config.target_modules = paths;
  config.exclude_modules = nullptr;
}

TensorMap adapter_tensors(const Model& model, const std::string& prefix) {
  TensorMap tensors;
  // As PEFT nests them: the module's last stack outermost.
  std::string outer, path;
  const std::vector<LoraStack> stacks = lora_stacks(model);
  for (auto layer = stacks.rbegin(); layer != stacks.rend(); ++layer) {
    const std::string module = layer->name.substr(0, layer->name.rfind('.'));
    path = module == outer ? path + ".base_layer" : prefix + module;
    outer = module;
    tensors[path + ".lora_A.weight"] = layer->adapter->lora_A;
    tensors[path + ".lora_B.weight"] = layer->adapter->lora_B;
  }
  for (const auto& [name, linear, adapter] : lora_layers(model)) {
    const std::string path = prefix + name;
    tensors[path + ".lora_A.weight"] = adapter->lora_A;
    tensors[path + ".lora_B.weight"] = adapter->lora_B;
    if (adapter->magnitude.defined()) tensors[path + ".lora_magnitude_vector"] = adapter->magnitude;
  }
  return tensors;
}

Json config_for(const Model& model, const AdapterFileOptions& options) {
  LoraConfig config = lora_config(model);
  settle_targets(config, model);
  Json json = lora_config_to_peft(config);
  if (!options.base_model.empty()) json["base_model_name_or_path"] = options.base_model;
  // Lets AutoPeftModel find the class; both libraries export their models at the top.
  const bool transformers = model.config_json().contains("architectures");
  json["auto_mapping"] = {{"base_model_class", model.class_name()},
                          {"parent_library", transformers ? "transformers" : "diffusers"}};
  return json;
}

void write_files(const std::filesystem::path& dir,
                 const std::map<std::string, FileContent>& files) {
  for (const auto& [name, content] : files) {
    if (content.tensors.empty())
      write_file(dir / name, content.text);
    else
      save_safetensors(dir / name, content.tensors, content.metadata);
  }
}

}  // namespace

std::map<std::string, FileContent> peft_adapter_files(const Model& model,
                                                      const AdapterFileOptions& options) {
  return {{"adapter_model.safetensors", {.tensors = adapter_tensors(model, "base_model.model.")}},
          {"adapter_config.json",
           {.text = json_text(config_for(model, options), "adapter_config.json")}}};
}

std::map<std::string, FileContent> diffusers_lora_files(const Model& model,
                                                        const AdapterFileOptions& options) {
  Json config = Json::object();
  const Json plain = config_for(model, options);
  for (const auto& [key, value] : plain.items()) config[options.component + "." + key] = value;
  return {{"pytorch_lora_weights.safetensors",
           {.tensors = adapter_tensors(model, options.component + "."),
            .metadata = {{"lora_adapter_metadata", config.dump(2)}}}}};
}

void save_peft_adapter(const std::filesystem::path& dir, const Model& model,
                       const AdapterFileOptions& options) {
  require_effect(model);
  write_files(dir, peft_adapter_files(model, options));
}

void save_diffusers_lora(const std::filesystem::path& dir, const Model& model,
                         const AdapterFileOptions& options) {
  require_effect(model);
  write_files(dir, diffusers_lora_files(model, options));
}

}  // namespace cosmos::modules
