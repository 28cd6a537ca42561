#pragma once

// The "grpo" recipe: a language model learns from rewards of its own answers, each compared with
// the others to the same question (DeepSeekMath, 2024).
//
//   {"type": "grpo", "model": {"path": DIR}, "lora": {...}, "data": {"files": ["questions.jsonl"]},
//    "answers": 8, "rewards": [{"type": "format", "weight": 0.2}, {"type": "choice"}]}
//
// A line of the data: a conversation that ends with a question, and `answer`, the truth, which is
// never shown. Answers are written by the model that is trained, in this process, from
// Philox(seed, kToken, sample): rollout and training agree on log p.
//
//   A = (r - mean r) / (std r + 1e-6)     over the answers to a question
//   ratio = p / p_old                     of a token, or (gspo) the geometric mean over an answer
//   L = -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) + kl_beta k3
//   k3 = p_ref / p - log(p_ref / p) - 1; dual clip: L is at most -dual_clip A where A < 0
//
// With `tools` an answer may take several turns: a program outside answers the model's calls
// (trainer/recipes/episodes.h). Rewards see the last turn; what the program says is not learned.
//
// Metrics: reward, reward/TYPE by label, answer_tokens, truncated, turns, skipped_groups, clipped,
// kl.

#include <fstream>

#include "modules/vlm/generate.h"
#include "trainer/recipes/episodes.h"
#include "trainer/recipes/language_recipe.h"
#include "trainer/recipes/reference_model.h"
#include "trainer/recipes/rewards.h"

namespace cosmos::trainer {

struct GrpoConfig : LanguageRecipeConfig {
  std::vector<RewardConfig> rewards;
  int64_t answers = 8;
  int64_t max_new_tokens = 512;
  modules::SamplingConfig sampling{.do_sample = true, .top_k = 0};
  int64_t updates = 1;
  std::string ratio = "token";
  std::string aggregation = "token";
  bool scale_by_std = true;
  double clip_low = 0.2, clip_high = 0.2;
  double dual_clip = 0;
  double kl_beta = 0;
  bool skip_equal_groups = true;
  bool mask_truncated = false;
  std::string rollouts;
  std::optional<ToolConfig> tools;

  template <typename Visitor>
  void fields(Visitor& v) {
    model.fields(v);
    v("data", data, "training questions");
    v("validation_data", validation_data, "validation questions; null = no validation");
    v("rewards", rewards, "what answers are worth; the sum of weight * reward");
    v("answers", answers, "answers to a question in each step");
    v("max_new_tokens", max_new_tokens, "longest answer");
    v("sampling", sampling, "how answers are drawn");
    v("updates", updates, "optimiser steps on each set of answers");
    v("ratio", ratio, "token, or sequence (GSPO)");
    v("aggregation", aggregation,
      "token: mean over all tokens (DAPO); sequence: mean of answers' means (GRPO); length: sum "
      "over "
      "answers * max_new_tokens (Dr.GRPO)");
    v("scale_by_std", scale_by_std,
      "divide by the deviation of a question's rewards (Dr.GRPO: no)");
    v("clip_low", clip_low, "the ratio's clip below 1");
    v("clip_high", clip_high, "the ratio's clip above 1 (DAPO: 0.28)");
    v("dual_clip", dual_clip, "bound for bad answers, above 1 (3); 0: none");
    v("kl_beta", kl_beta, "weight of the k3 estimate of KL to the model before training");
    v("skip_equal_groups", skip_equal_groups,
      "questions whose answers all have one reward do not count (dynamic sampling)");
    v("mask_truncated", mask_truncated, "answers cut at max_new_tokens do not count");
    v("tools", tools, "the program that answers tool calls; null: answers have one turn");
    v("rollouts", rollouts, "JSONL file that every answer is written to; empty: none");
  }
  void check(const std::string& where) const;
};

/// Advantages of answers, `group` to a question: [n group] -> [n group]
Tensor group_advantages(const Tensor& rewards, int64_t group, bool scale_by_std);

/// One set of answers, as the loss sees it.
struct Rollout {
  PackedConversations packed;
  Tensor advantage;       ///< [answers]
  Tensor counts;          ///< bool [answers]: whether an answer is learned from
  Tensor old, reference;  ///< log p of the tokens; reference undefined without kl_beta
};

/// The policy loss of a rollout under the log-probabilities `now`; metrics receives `clipped`,
/// `kl`.
Tensor policy_loss(const GrpoConfig& config, const TokenLogProbs& now, const Rollout& rollout,
                   std::map<std::string, Tensor>& metrics);

class GrpoRecipe : public LanguageRecipe {
 public:
  /// Reads and checks the settings; opens nothing.
  GrpoRecipe(const Json& config, const std::string& where, EncoderFactory encoder);

  std::shared_ptr<Dataset> train_data() override;
  Loss loss(const Batch& batch, const StepContext& context) override;
  Json resolved_config() const override;

 protected:
  const LanguageRecipeConfig& shared_config() const override { return config_; }

 private:
  std::vector<Episode> write_answers(const Batch& batch, int64_t answers, bool greedy,
                                     uint64_t seed, uint64_t first);
  Tensor score(const Batch& batch, const std::vector<Episode>& episodes, int64_t group,
               int64_t step, Loss& loss);
  Rollout roll_out(const Batch& batch, const StepContext& context, Loss& loss);
  Loss validation_loss(const Batch& batch, const StepContext& context);

  GrpoConfig config_;
  EpisodePlayer player_;
  std::unique_ptr<ReferenceModel> reference_;
  std::vector<std::unique_ptr<Reward>> rewards_;
  std::vector<Rollout> kept_;  ///< of the step's micro-batches, while updates > 1
  int64_t kept_step_ = -1;     ///< that began with them
  int64_t step_ = -1;          ///< of the latest loss
  std::size_t micro_batch_ = 0;
  std::ofstream rollouts_;
};

std::shared_ptr<Recipe> make_grpo_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
