#include "trainer/recipes/sft_config.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "modules/core/hollow.h"
#include "modules/hub/json_file.h"
#include "modules/hub/registry.h"
#include "modules/lora/lora.h"

namespace cosmos::trainer {
namespace {

using modules::LanguageModel;

const std::set<std::string> kParts = {"vision", "merger", "language_model"};

bool starts_with(const std::string& text, const char* prefix) {
  return text.rfind(prefix, 0) == 0;
}

// Follows the run's seed, which the trainer gives to torch before it asks for the model.
uint64_t next_seed() {
  return static_cast<uint64_t>(torch::randint(1LL << 62, {1}).item<int64_t>());
}

std::shared_ptr<LanguageModel> as_language_model(const std::shared_ptr<modules::Model>& model,
                                                 const std::string& where) {
  auto language = std::dynamic_pointer_cast<LanguageModel>(model);
  require(language != nullptr, where, ".model: ", model->class_name(), " is not a language model");
  return language;
}

// Freshly built from the folder's config.json, or from the one written inline.
std::shared_ptr<LanguageModel> build(const Json& settings, const std::string& where) {
  if (!settings.contains("path")) {
    Json config = settings;
    config.erase("tokenizer");
    return as_language_model(modules::make_model(config, where + ".model"), where);
  }
  const auto file = std::filesystem::path(settings["path"].get<std::string>()) / "config.json";
  return as_language_model(modules::make_model(modules::read_json(file), file.string()), where);
}

void finish(LanguageModel& model, const LanguageModelSettings& settings, uint64_t seed) {
  if (settings.lora) {
    apply_lora(model, settings.adapters(), seed);
  } else {
    for (auto& item : model.named_parameters())
      if (settings.frozen(model_part(item.key()))) item.value().set_requires_grad(false);
  }
  model.set_always_sees(true);
  model.train();
}

}  // namespace

std::string model_part(const std::string& parameter) {
  if (starts_with(parameter, "model.visual.merger.") ||
      starts_with(parameter, "model.visual.deepstack_merger_list."))
    return "merger";
  return starts_with(parameter, "model.visual.") ? "vision" : "language_model";
}

void LanguageModelSettings::check(const std::string& where) const {
  require(model.is_object() && !model.empty(), where,
          ".model: expected {\"path\": DIR}, or a config.json inline, got ",
          modules::describe(model));
  for (const char* key : {"path", "tokenizer"})
    require(!model.contains(key) || model[key].is_string(), where, ".model.", key,
            ": expected a folder, got ", modules::describe(model.value(key, Json())));
  for (const auto& part : freeze) {
    const std::string near = modules::nearest(part, {kParts.begin(), kParts.end()});
    require(kParts.count(part) > 0, where, ".freeze: expected vision, merger or language_model, ",
            "got ", part, near.empty() ? "" : " (did you mean " + near + "?)");
  }
  require(std::set<std::string>(freeze.begin(), freeze.end()).size() < kParts.size() || lora, where,
          ".freeze: everything is frozen, nothing is left to train");
  if (lora) lora->check(where + ".lora");
}

std::string LanguageModelSettings::text_folder() const {
  return model.value("tokenizer", model.value("path", std::string()));
}

bool LanguageModelSettings::frozen(const std::string& part) const {
  return std::find(freeze.begin(), freeze.end(), part) != freeze.end();
}

// Neither the head nor the experts' routers are targets of "all-linear", as in PEFT: the head's
// loss is computed without logits, and transformers' routers are no layers that PEFT could adapt.
modules::LoraConfig LanguageModelSettings::adapters() const {
  modules::LoraConfig config = *lora;
  if (!config.exclude_modules.is_null() && !config.exclude_modules.is_array()) return config;
  Json exclude = config.exclude_modules.is_null() ? Json::array() : config.exclude_modules;
  if (config.target_modules == "all-linear")
    for (const char* name : {"lm_head", "*.mlp.gate"}) exclude.push_back(name);
  const std::pair<const char*, std::vector<const char*>> parts[] = {
      {"vision", {"model.visual.blocks.*"}},
      {"merger", {"model.visual.merger.*", "model.visual.deepstack_merger_list.*"}},
      {"language_model", {"model.language_model.*", "model.layers.*"}}};
  for (const auto& [part, patterns] : parts)
    for (const char* pattern : patterns)
      if (frozen(part)) exclude.push_back(pattern);
  if (!exclude.empty()) config.exclude_modules = exclude;
  return config;
}

std::shared_ptr<LanguageModel> LanguageModelSettings::load(const std::string& where) const {
  auto language =
      model.contains("path")
          ? as_language_model(modules::load_model(model["path"].get<std::string>()), where)
          : build(model, where);
  finish(*language, *this, next_seed());
  return language;
}

std::shared_ptr<LanguageModel> LanguageModelSettings::load_hollow(const std::string& where) const {
  if (!model.contains("path") || (lora && lora->use_dora)) return nullptr;
  std::shared_ptr<LanguageModel> language;
  {
    const modules::HollowInit without_bytes;
    language = build(model, where);
  }
  finish(*language, *this, next_seed());
  return language;
}

std::shared_ptr<LanguageModel> LanguageModelSettings::shape(const std::string& where) const {
  const modules::SkipInit skip;
  auto language = build(model, where);
  finish(*language, *this, 0);
  return language;
}

void LanguageRecipeConfig::check(const std::string& where) const {
  model.check(where);
  data.check(where + ".data");
  if (validation_data) validation_data->check(where + ".validation_data");
}

void SftConfig::check(const std::string& where) const {
  LanguageRecipeConfig::check(where);
  require(label_smoothing >= 0 && label_smoothing < 1, where,
          ".label_smoothing: expected 0 <= label_smoothing < 1, got ", label_smoothing);
  require(z_loss >= 0, where, ".z_loss: expected 0 or more, got ", z_loss);
  require(exact_match_tokens >= 0, where, ".exact_match_tokens: expected 0 or more, got ",
          exact_match_tokens);
}

}  // namespace cosmos::trainer
