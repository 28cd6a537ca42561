#include "trainer/recipes/language_recipe.h"

#include <utility>

#include "modules/hub/export_folder.h"
#include "modules/hub/model_weights.h"
#include "modules/lora/files.h"
#include "modules/lora/lora.h"

namespace cosmos::trainer {

LanguageRecipe::LanguageRecipe(std::string where, EncoderFactory encoder, LineReader reader)
    : where_(std::move(where)), make_encoder_(std::move(encoder)), reader_(std::move(reader)) {}

std::shared_ptr<modules::LanguageModel> LanguageRecipe::language_model() {
  if (!model_) {
    model_ = shared_config().model.load(where_);
    read_model_files();
  }
  return model_;
}

void LanguageRecipe::read_model_files() {
  const LanguageModelSettings& settings = shared_config().model;
  if (!settings.lora && !settings.text_folder().empty())
    model_files_ = modules::text_files(settings.text_folder());
}

std::shared_ptr<modules::Model> LanguageRecipe::model_without_weights() {
  if (model_) return nullptr;
  model_ = shared_config().model.load_hollow(where_);
  if (model_) read_model_files();
  return model_;
}

void LanguageRecipe::read_weights(const TakeWeight& take) {
  const std::string dir = shared_config().model.model.at("path");
  modules::read_folder(*model_, dir, [&](const modules::BaseTensor& place, const Tensor& whole) {
    take(place.names[0], whole);
  });
}

std::shared_ptr<modules::Model> LanguageRecipe::model_for_plan() {
  return model_ ? model_ : shared_config().model.shape(where_);
}

std::shared_ptr<Dataset> LanguageRecipe::open(const ConversationDataConfig& data,
                                              const std::string& name) {
  if (!encoder_) encoder_ = make_encoder_(shared_config().model, *language_model());
  return std::make_shared<ConversationDataset>(data, encoder_, where_ + "." + name, reader_);
}

std::shared_ptr<Dataset> LanguageRecipe::train_data() {
  if (!train_) train_ = open(shared_config().data, "data");
  return train_;
}

std::shared_ptr<Dataset> LanguageRecipe::validation_data() {
  const auto& data = shared_config().validation_data;
  if (!validation_ && data) validation_ = open(*data, "validation_data");
  return validation_;
}

std::map<std::string, modules::FileContent> LanguageRecipe::adapter_files() {
  if (!shared_config().model.lora) return {};
  return modules::peft_adapter_files(*language_model());
}

void LanguageRecipe::prepare(const Batch& batch, const StepContext& context) {
  const auto& lora = shared_config().model.lora;
  if (!lora || lora->dropout <= 0) return;
  set_dropout_samples(*language_model(), context.seed,
                      context.training ? batch.indices : std::vector<int64_t>{});
}

}  // namespace cosmos::trainer
