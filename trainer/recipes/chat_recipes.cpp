// The recipes on language models with the encoder of the model's own folder.

#include "trainer/data/chat_encoder.h"
#include "trainer/recipes/dpo.h"
#include "trainer/recipes/grpo.h"
#include "trainer/recipes/sft.h"

namespace cosmos::trainer {

EncoderFactory chat_encoder_factory(const std::string& where) {
  return [where](const LanguageModelSettings& settings, const modules::LanguageModel&) {
    require(!settings.text_folder().empty(), where,
            ".model.tokenizer: expected the folder of a tokenizer beside a config inline");
    return ChatEncoder::load(settings.text_folder(), settings.processor, where + ".processor");
  };
}

std::shared_ptr<Recipe> make_sft_recipe(const Json& config, const std::string& where) {
  return std::make_shared<SftRecipe>(config, where, chat_encoder_factory(where));
}

std::shared_ptr<Recipe> make_dpo_recipe(const Json& config, const std::string& where) {
  return std::make_shared<DpoRecipe>(config, where, chat_encoder_factory(where));
}

std::shared_ptr<Recipe> make_grpo_recipe(const Json& config, const std::string& where) {
  return std::make_shared<GrpoRecipe>(config, where, chat_encoder_factory(where));
}

}  // namespace cosmos::trainer
