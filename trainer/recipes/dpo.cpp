#include "trainer/recipes/dpo.h"

#include <utility>

namespace cosmos::trainer {
namespace {

using modules::Conversation;
using modules::Message;
using modules::MessagePart;

// The answer in `line[key]`: a text, a message, or the last of a list of messages.
Message read_answer(const Json& line, const char* key, const std::string& where) {
  const std::string at = where + "." + key;
  require(line.contains(key), where, ": expected an object with prompt, chosen and rejected");
  const Json& value = line[key];
  if (value.is_string())
    return {.role = "assistant",
            .parts = {{.kind = MessagePart::Kind::kText, .value = value.get<std::string>()}}};
  const Json messages = value.is_array() ? value : Json::array({value});
  const Conversation read = modules::read_conversation({{"messages", messages}}, at);
  require(read.messages.back().role == "assistant", at,
          ": expected an assistant's answer at the end, got \"", read.messages.back().role, "\"");
  return read.messages.back();
}

Conversation read_prompt(const Json& line, const std::string& where) {
  if (!line.contains("prompt")) return modules::read_conversation(line, where);
  const Json& prompt = line["prompt"];
  const Json messages =
      prompt.is_array() ? prompt : Json::array({{{"role", "user"}, {"content", prompt}}});
  return modules::read_conversation({{"messages", messages}}, where + ".prompt");
}

Tensor every_second(const Tensor& x, int64_t first) {
  return x.view({-1, 2}).select(1, first);
}

}  // namespace

void DpoConfig::check(const std::string& where) const {
  LanguageRecipeConfig::check(where);
  require(loss == "sigmoid" || loss == "ipo", where, ".loss: expected sigmoid or ipo, got ", loss);
  require(beta > 0, where, ".beta: expected a number above 0, got ", beta);
  require(label_smoothing >= 0 && label_smoothing < 0.5, where,
          ".label_smoothing: expected 0 <= label_smoothing < 0.5, got ", label_smoothing);
  require(sft_weight >= 0, where, ".sft_weight: expected 0 or more, got ", sft_weight);
}

ConversationLine read_preference_line(const Json& line, const std::string& where) {
  require(line.is_object(), where, ": expected an object, got ", modules::describe(line));
  std::vector<Conversation> pair(2, read_prompt(line, where));
  pair[0].messages.push_back(read_answer(line, "chosen", where));
  pair[1].messages.push_back(read_answer(line, "rejected", where));
  for (const auto& conversation : pair) modules::check_conversation(conversation, where);
  return {.conversations = pair};
}

Tensor preference_loss(const DpoConfig& config, const Tensor& log_probs, const Tensor& reference,
                       std::map<std::string, Tensor>& metrics) {
  const Tensor reward = log_probs - reference;
  const Tensor chosen = every_second(reward, 0), rejected = every_second(reward, 1);
  const Tensor h = chosen - rejected;
  metrics["accuracy"] = h.detach().gt(0).to(torch::kFloat32).mean();
  metrics["margin"] = config.beta * h.detach().mean();
  metrics["reward_chosen"] = config.beta * chosen.detach().mean();
  metrics["reward_rejected"] = config.beta * rejected.detach().mean();
  if (config.loss == "ipo") return (h - 1 / (2 * config.beta)).square().mean();
  const double wrong = config.label_smoothing;
  return -((1 - wrong) * torch::log_sigmoid(config.beta * h) +
           wrong * torch::log_sigmoid(-config.beta * h))
              .mean();
}

DpoRecipe::DpoRecipe(const Json& config, const std::string& where, EncoderFactory encoder)
    : LanguageRecipe(where, std::move(encoder), read_preference_line) {
  modules::read_fields(config, config_, where, modules::UnknownKeys::kRefuse);
  config_.check(where);
}

Json DpoRecipe::resolved_config() const {
  Json json = modules::write_fields(config_);
  json["type"] = "dpo";
  return json;
}

std::shared_ptr<Dataset> DpoRecipe::train_data() {
  // Before the first step: the model is still what the reference must be.
  if (!reference_) reference_ = std::make_unique<ReferenceModel>(language_model());
  return LanguageRecipe::train_data();
}

Loss DpoRecipe::loss(const Batch& batch, const StepContext& context) {
  modules::LanguageModel& model = *language_model();
  prepare(batch, context);
  const PackedConversations packed = unpack_batch(model, batch);
  const TokenLogProbs reference = reference_->log_probs(packed);
  const TokenLogProbs now = token_log_probs(model, packed);
  const bool means = config_.length_normalized || config_.loss == "ipo";
  const Tensor count = now.count();
  const auto per_answer = [&](const TokenLogProbs& tokens) {
    const Tensor sums = tokens.sum(tokens.values);
    return means ? sums / count : sums;
  };
  Loss loss{.value = {}, .metrics = {}, .by_label = {}};
  const Tensor log_probs = per_answer(now);
  loss.value = preference_loss(config_, log_probs, per_answer(reference), loss.metrics);
  if (config_.sft_weight > 0) {
    const Tensor chosen = every_second(log_probs, 0);
    const Tensor sft = -(means ? chosen : chosen / every_second(count, 0)).mean();
    loss.metrics["sft_loss"] = sft.detach();
    loss.value = loss.value + config_.sft_weight * sft;
  }
  return loss;
}

}  // namespace cosmos::trainer
