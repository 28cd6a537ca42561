#pragma once

// Settings that the recipes on language models share, and those of "sft".

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "modules/lora/config.h"
#include "modules/vlm/language_model.h"
#include "trainer/data/conversation_dataset.h"

namespace cosmos::trainer {

struct LanguageModelSettings {
  Json model = Json::object();
  std::vector<std::string> freeze;
  std::optional<modules::LoraConfig> lora;
  Json processor = Json::object();

  template <typename Visitor>
  void fields(Visitor& v) {
    v("model", model,
      "{\"path\": DIR} of a Qwen-VL or ForCausalLM folder, or its config.json inline for fresh "
      "weights, with `architectures` and \"tokenizer\": DIR");
    v("freeze", freeze, "parts that stay as they are: vision, merger, language_model");
    v("lora", lora, "train low-rank adapters instead of the weights (all-linear spares lm_head)");
    v("processor", processor, "changes to the folder's image and video settings");
  }

  void check(const std::string& where) const;
  /// The model with its weights, its parts frozen and its adapters on.
  std::shared_ptr<modules::LanguageModel> load(const std::string& where) const;
  /// The same with hollow weights, to be read by read_folder(); null where there is no folder, or
  /// adapters need the weights (DoRA's magnitudes are their norms).
  std::shared_ptr<modules::LanguageModel> load_hollow(const std::string& where) const;
  /// The same without weights: no weight file is read.
  std::shared_ptr<modules::LanguageModel> shape(const std::string& where) const;
  bool frozen(const std::string& part) const;
  /// The adapters' settings, without frozen parts and the head.
  modules::LoraConfig adapters() const;
  /// The folder that holds tokenizer and processor files.
  std::string text_folder() const;
};

/// Makes the encoder of the model's conversations.
using EncoderFactory = std::function<std::shared_ptr<const modules::ConversationEncoder>(
    const LanguageModelSettings& settings, const modules::LanguageModel& model)>;
/// The real one: ChatEncoder of the model's folder. `where` names the recipe in errors.
EncoderFactory chat_encoder_factory(const std::string& where);

/// vision, merger or language_model, for a parameter's name.
std::string model_part(const std::string& parameter);

/// What every recipe on a language model is told.
struct LanguageRecipeConfig {
  LanguageModelSettings model;
  ConversationDataConfig data;
  std::optional<ConversationDataConfig> validation_data;

  void check(const std::string& where) const;
};

struct SftConfig : LanguageRecipeConfig {
  double label_smoothing = 0;
  double z_loss = 0;
  bool token_accuracy = false;
  int64_t exact_match_tokens = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    model.fields(v);
    v("data", data, "training conversations");
    v("validation_data", validation_data, "validation conversations; null = no validation");
    v("label_smoothing", label_smoothing, "share of the target spread over all tokens");
    v("z_loss", z_loss, "weight of the squared log of the softmax's denominator");
    v("token_accuracy", token_accuracy,
      "also in training: share of learned tokens that are the likeliest (one more product with "
      "the head); validation always has it");
    v("exact_match_tokens", exact_match_tokens,
      "validation: also writes the last answer of each conversation, greedily and with at most so "
      "many tokens, and reports the share that equals it; 0: does not");
  }
  void check(const std::string& where) const;
};

}  // namespace cosmos::trainer
