#pragma once

// What the recipes on language models have in common: a model that is frozen or adapted in parts,
// and conversations of JSONL files as its data.

#include <map>
#include <memory>
#include <string>

#include "trainer/core/recipe.h"
#include "trainer/recipes/sft_config.h"

namespace cosmos::trainer {

class LanguageRecipe : public Recipe {
 public:
  std::shared_ptr<modules::Model> model() override { return language_model(); }
  std::shared_ptr<modules::Model> model_without_weights() override;
  void read_weights(const TakeWeight& take) override;
  std::shared_ptr<modules::Model> model_for_plan() override;
  std::shared_ptr<Dataset> train_data() override;
  std::shared_ptr<Dataset> validation_data() override;
  std::map<std::string, modules::FileContent> adapter_files() override;
  std::map<std::string, std::string> model_files() override { return model_files_; }
  /// Draws the adapters' dropout masks for the batch; none in validation.
  void prepare(const Batch& batch, const StepContext& context) override;

 protected:
  /// `reader` reads a line of the data. Opens nothing.
  LanguageRecipe(std::string where, EncoderFactory encoder, LineReader reader);

  virtual const LanguageRecipeConfig& shared_config() const = 0;
  const std::string& where() const { return where_; }
  std::shared_ptr<modules::LanguageModel> language_model();
  /// Null before there is data.
  const std::shared_ptr<const modules::ConversationEncoder>& encoder() const { return encoder_; }

 private:
  void read_model_files();
  std::shared_ptr<Dataset> open(const ConversationDataConfig& data, const std::string& name);

  std::string where_;
  EncoderFactory make_encoder_;
  LineReader reader_;
  std::shared_ptr<modules::LanguageModel> model_;
  std::shared_ptr<const modules::ConversationEncoder> encoder_;
  std::shared_ptr<Dataset> train_, validation_;
  std::map<std::string, std::string> model_files_;  ///< read with the model: its folder may go
};

}  // namespace cosmos::trainer
