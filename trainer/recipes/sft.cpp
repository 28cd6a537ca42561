#include "trainer/recipes/sft.h"

#include <algorithm>
#include <utility>

#include "modules/vlm/generate.h"
#include "trainer/recipes/rewards.h"

namespace cosmos::trainer {
namespace {

using modules::kIgnoreToken;

// Number of learned tokens that are the likeliest. hidden: [N, D], target: [N]
Tensor count_correct(const Tensor& hidden, modules::Linear head, const Tensor& target) {
  constexpr int64_t kRows = 256;  // logits of so many tokens at a time
  const torch::NoGradGuard no_grad;
  Tensor correct = torch::zeros({}, target.options());
  for (int64_t begin = 0; begin < hidden.size(0); begin += kRows) {
    const int64_t rows = std::min(kRows, hidden.size(0) - begin);
    const Tensor logits = head->forward(hidden.narrow(0, begin, rows));
    correct += logits.argmax(-1).eq(target.narrow(0, begin, rows)).sum();
  }
  return correct;
}

}  // namespace

SftRecipe::SftRecipe(const Json& config, const std::string& where, EncoderFactory encoder)
    : LanguageRecipe(where, std::move(encoder), read_training_line) {
  modules::read_fields(config, config_, where, modules::UnknownKeys::kRefuse);
  config_.check(where);
}

Json SftRecipe::resolved_config() const {
  Json json = modules::write_fields(config_);
  json["type"] = "sft";
  return json;
}

std::optional<double> SftRecipe::loss_weight(const Batch& batch) const {
  return static_cast<double>(learned_tokens(batch));
}

// The share of last answers that the model, asked again, writes as they are: their text, white
// space around it aside.
Tensor SftRecipe::exact_match(const Batch& batch) {
  std::vector<modules::Sequence> prompts;
  const std::vector<AskedAgain> asked = ask_again(*language_model(), batch);
  for (const auto& one : asked) prompts.push_back(one.prompt);
  const auto answers = generate(*language_model(), prompts,
                                {.sampling = {.do_sample = false},
                                 .max_new_tokens = config_.exact_match_tokens,
                                 .stop_tokens = encoder()->stop_tokens()});
  int64_t same = 0;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const std::string want = trimmed(encoder()->decode(asked[i].answer));
    same += answers[i].stopped && trimmed(encoder()->decode(answers[i].tokens)) == want;
  }
  return torch::tensor(static_cast<double>(same) / static_cast<double>(asked.size()));
}

Loss SftRecipe::loss(const Batch& batch, const StepContext& context) {
  modules::LanguageModel& model = *language_model();
  prepare(batch, context);
  const PackedConversations packed = unpack_batch(model, batch);
  const Tensor hidden = model.forward(pack_sequences(model, packed.sequences))[0];
  // Only learned tokens meet the head.
  const Tensor rows = packed.targets.ne(kIgnoreToken).nonzero().squeeze(1);
  const Tensor target = packed.targets.index_select(0, rows);
  const bool accuracy = config_.token_accuracy || !context.training;
  Loss loss{.value = {}, .metrics = {}, .by_label = {}};
  // By value: recomputation runs this again in backward.
  const auto correct = std::make_shared<Tensor>();
  const auto head_loss = [correct, target, accuracy, smoothing = config_.label_smoothing,
                          z = config_.z_loss](const Tensor& x, const modules::Linear& head) {
    if (accuracy) *correct = count_correct(x, head, target);
    return modules::linear_cross_entropy(x, head, target, kIgnoreToken, smoothing, z);
  };
  loss.value = model.run_head(hidden.index_select(0, rows), head_loss);
  const auto share = [&](const Tensor& count, int64_t of) {
    return count.to(torch::kFloat32) / static_cast<double>(std::max<int64_t>(of, 1));
  };
  if (accuracy) loss.metrics["token_accuracy"] = share(*correct, target.numel());
  if (!context.training && config_.exact_match_tokens > 0)
    loss.metrics["exact_match"] = exact_match(batch);
  loss.metrics["tokens"] = torch::tensor(static_cast<double>(packed.targets.numel()));
  loss.metrics["learned_tokens"] = torch::tensor(static_cast<double>(target.numel()));
  return loss;
}

}  // namespace cosmos::trainer
