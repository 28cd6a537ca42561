#pragma once

// The "dpo" recipe: makes the chosen of two answers likelier than the rejected one, relative to a
// reference model that stays as it was (Rafailov et al., 2023).
//
//   {"type": "dpo", "model": {"path": DIR}, "lora": {...}, "beta": 0.1,
//    "data": {"files": ["pairs.jsonl"]}}
//
// A line of the data: a conversation up to the question (`messages`, `conversations`, or `prompt`
// as a text or a list of messages), and `chosen` and `rejected`: a text, a message, or a list whose
// last message counts. With an adapter the reference is the model without it; else it is a frozen
// copy.
//
//   h = (log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected))
//   sigmoid  -(1 - e) log s(beta h) - e log s(-beta h)    e = label_smoothing (cDPO)
//   ipo      (h - 1 / (2 beta))²                          h of means over tokens
//
// Metrics: accuracy (h > 0), margin (beta h), reward_chosen, reward_rejected.

#include "trainer/recipes/language_recipe.h"
#include "trainer/recipes/reference_model.h"

namespace cosmos::trainer {

struct DpoConfig : LanguageRecipeConfig {
  std::string loss = "sigmoid";
  double beta = 0.1;
  double label_smoothing = 0;
  bool length_normalized = false;
  double sft_weight = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    model.fields(v);
    v("data", data, "training pairs");
    v("validation_data", validation_data, "validation pairs; null = no validation");
    v("loss", loss, "sigmoid (DPO, cDPO with label_smoothing) or ipo");
    v("beta", beta, "how strongly the reference holds");
    v("label_smoothing", label_smoothing, "share of the pairs taken to be the wrong way round");
    v("length_normalized", length_normalized, "means over an answer's tokens in place of sums");
    v("sft_weight", sft_weight, "weight of the chosen answer's own loss beside it");
  }
  void check(const std::string& where) const;
};

/// The chosen and the rejected conversation of a line.
ConversationLine read_preference_line(const Json& line, const std::string& where);

/// Loss of pairs. log_probs and reference: [2 n], chosen and rejected in turn; metrics receives
/// the means over pairs.
Tensor preference_loss(const DpoConfig& config, const Tensor& log_probs, const Tensor& reference,
                       std::map<std::string, Tensor>& metrics);

class DpoRecipe : public LanguageRecipe {
 public:
  /// Reads and checks the settings; opens nothing.
  DpoRecipe(const Json& config, const std::string& where, EncoderFactory encoder);

  std::shared_ptr<Dataset> train_data() override;
  Loss loss(const Batch& batch, const StepContext& context) override;
  Json resolved_config() const override;

 protected:
  const LanguageRecipeConfig& shared_config() const override { return config_; }

 private:
  DpoConfig config_;
  std::unique_ptr<ReferenceModel> reference_;
};

std::shared_ptr<Recipe> make_dpo_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
