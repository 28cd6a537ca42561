#include "trainer/recipes/grpo.h"

#include <algorithm>
#include <utility>

namespace cosmos::trainer {
namespace {

ConversationLine read_question(const Json& line, const std::string& where) {
  ConversationLine read{.conversations = {modules::read_conversation(line, where)}, .open = true};
  const std::string last = read.conversations[0].messages.back().role;
  require(last == "user" || last == "tool", where, ": expected a question at the end, got \"", last,
          "\"");
  require(line.contains("answer"), where,
          ": expected `answer`, the truth, beside the conversation");
  const Json& truth = line["answer"];
  read.text["truth"] = truth.is_string() ? truth.get<std::string>() : truth.dump();
  return read;
}

}  // namespace

void GrpoConfig::check(const std::string& where) const {
  const auto one_of = [&](const char* key, const std::string& value,
                          std::vector<std::string> known) {
    require(std::find(known.begin(), known.end(), value) != known.end(), where, ".", key,
            ": expected ", known[0], known.size() > 2 ? ", " + known[1] : "", " or ", known.back(),
            ", got ", value);
  };
  LanguageRecipeConfig::check(where);
  require(data.pack_length == 0, where, ".data.pack_length: questions are not packed, set it to 0");
  require(!rewards.empty(), where, ".rewards: expected at least one");
  require(answers > 1, where, ".answers: expected at least 2 to compare, got ", answers);
  require(max_new_tokens > 0, where, ".max_new_tokens: expected a positive number, got ",
          max_new_tokens);
  require(updates > 0, where, ".updates: expected a positive number, got ", updates);
  sampling.check(where + ".sampling");
  require(sampling.do_sample, where, ".sampling.do_sample: answers must differ, set it to true");
  one_of("ratio", ratio, {"token", "sequence"});
  one_of("aggregation", aggregation, {"token", "sequence", "length"});
  require(clip_low > 0 && clip_low < 1 && clip_high > 0, where,
          ".clip_low, clip_high: expected numbers above 0, clip_low below 1, got ", clip_low,
          " and ", clip_high);
  require(dual_clip == 0 || dual_clip > 1, where,
          ".dual_clip: expected 0 or a number above 1, got ", dual_clip);
  if (tools) tools->check(where + ".tools");
  require(kl_beta >= 0, where, ".kl_beta: expected 0 or more, got ", kl_beta);
}

namespace {

GrpoConfig read_config(const Json& json, const std::string& where) {
  GrpoConfig config;
  modules::read_fields(json, config, where, modules::UnknownKeys::kRefuse);
  config.check(where);
  return config;
}

}  // namespace

GrpoRecipe::GrpoRecipe(const Json& config, const std::string& where, EncoderFactory encoder)
    : LanguageRecipe(where, std::move(encoder), read_question),
      config_(read_config(config, where)),
      player_(config_.tools, where) {
  for (std::size_t i = 0; i < config_.rewards.size(); ++i)
    rewards_.push_back(
        make_reward(config_.rewards[i], where + ".rewards[" + std::to_string(i) + "]"));
}

Json GrpoRecipe::resolved_config() const {
  Json json = modules::write_fields(config_);
  json["type"] = "grpo";
  return json;
}

std::shared_ptr<Dataset> GrpoRecipe::train_data() {
  if (config_.kl_beta > 0 && !reference_)
    reference_ = std::make_unique<ReferenceModel>(language_model());
  return LanguageRecipe::train_data();
}

std::vector<Episode> GrpoRecipe::write_answers(const Batch& batch, int64_t answers, bool greedy,
                                               uint64_t seed, uint64_t first) {
  modules::GenerateOptions options{.sampling = config_.sampling,
                                   .max_new_tokens = config_.max_new_tokens,
                                   .stop_tokens = encoder()->stop_tokens(),
                                   .answers = answers,
                                   .seed = seed,
                                   .first_index = first};
  if (greedy) options.sampling.do_sample = false;
  return player_.play(*language_model(), *encoder(), batch_sequences(*language_model(), batch),
                      batch.text.at("truth"), options);
}

// Rewards of the answers, `group` to each of the batch's questions; also to the log of rollouts.
Tensor GrpoRecipe::score(const Batch& batch, const std::vector<Episode>& episodes, int64_t group,
                         int64_t step, Loss& loss) {
  const auto& truths = batch.text.at("truth");
  Tensor total = torch::zeros({static_cast<int64_t>(episodes.size())});
  int64_t tokens = 0, truncated = 0, turns = 0;
  for (std::size_t i = 0; i < episodes.size(); ++i) {
    const Episode& episode = episodes[i];
    const std::string& truth = truths[i / static_cast<std::size_t>(group)];
    const std::string& text = episode.text;
    Json row = {{"step", step}, {"answer", text}, {"truth", truth}};
    double sum = 0;
    for (std::size_t r = 0; r < rewards_.size(); ++r) {
      const double value = rewards_[r]->score(text, truth);
      sum += config_.rewards[r].weight * value;
      row[config_.rewards[r].type] = value;
      loss.by_label.emplace_back("reward/" + config_.rewards[r].type, value);
    }
    total[static_cast<int64_t>(i)] = sum;
    tokens += episode.tokens;
    truncated += episode.stopped ? 0 : 1;
    turns += static_cast<int64_t>(episode.turns.size());
    row["reward"] = sum;
    row["finish_reason"] = episode.stopped ? "stop" : "length";
    if (config_.tools) row["turns"] = episode.turns;
    if (rollouts_.is_open()) rollouts_ << row.dump() << '\n';
  }
  const auto count = static_cast<double>(episodes.size());
  loss.metrics["reward"] = total.mean();
  loss.metrics["answer_tokens"] = torch::tensor(static_cast<double>(tokens) / count);
  loss.metrics["truncated"] = torch::tensor(static_cast<double>(truncated) / count);
  if (config_.tools) loss.metrics["turns"] = torch::tensor(static_cast<double>(turns) / count);
  return total;
}

Rollout GrpoRecipe::roll_out(const Batch& batch, const StepContext& context, Loss& loss) {
  if (!config_.rollouts.empty() && !rollouts_.is_open()) {
    rollouts_.open(config_.rollouts, std::ios::app);
    require(rollouts_.good(), where(), ".rollouts: ", config_.rollouts, " cannot be written");
  }
  const auto first = static_cast<uint64_t>(batch.indices.front() * config_.answers);
  std::vector<Episode> episodes =
      write_answers(batch, config_.answers, /*greedy=*/false, context.seed, first);
  const Tensor rewards = score(batch, episodes, config_.answers, context.step, loss);
  rollouts_.flush();

  std::vector<modules::Sequence> sequences;
  Tensors labels;
  std::vector<bool> counted;
  for (Episode& episode : episodes) {
    sequences.push_back(std::move(episode.sequence));
    labels.push_back(episode.labels);
    counted.push_back(episode.stopped || !config_.mask_truncated);
  }
  const auto device = sequences[0].input_ids.device();
  Rollout rollout;
  rollout.packed = pack_labelled(std::move(sequences), labels);
  rollout.advantage = group_advantages(rewards, config_.answers, config_.scale_by_std).to(device);
  const Tensor groups = rewards.view({-1, config_.answers});
  const Tensor equal = std::get<0>(groups.max(1)).eq(std::get<0>(groups.min(1)));
  loss.metrics["skipped_groups"] = equal.to(torch::kFloat32).mean();
  rollout.counts = torch::ones({rewards.size(0)}, torch::kBool);
  for (std::size_t i = 0; i < counted.size(); ++i)
    rollout.counts[static_cast<int64_t>(i)] = bool(counted[i]);
  if (config_.skip_equal_groups)
    rollout.counts =
        rollout.counts.logical_and(equal.logical_not().repeat_interleave(config_.answers));
  rollout.counts = rollout.counts.to(device);
  if (config_.kl_beta > 0)
    rollout.reference = reference_->log_probs(rollout.packed, config_.sampling.temperature).values;
  return rollout;
}

Loss GrpoRecipe::validation_loss(const Batch& batch, const StepContext& context) {
  Loss loss{.value = {}, .metrics = {}, .by_label = {}};
  const std::vector<Episode> episodes = write_answers(batch, 1, /*greedy=*/true, context.seed, 0);
  loss.value = -score(batch, episodes, 1, context.step, loss).mean();
  return loss;
}

Loss GrpoRecipe::loss(const Batch& batch, const StepContext& context) {
  modules::LanguageModel& model = *language_model();
  if (!context.training) return validation_loss(batch, context);
  if (step_ != context.step) {
    step_ = context.step;
    micro_batch_ = 0;
    if (kept_step_ < 0 || step_ - kept_step_ >= config_.updates || step_ < kept_step_) {
      kept_.clear();
      kept_step_ = step_;
    }
  }
  Loss loss{.value = {}, .metrics = {}, .by_label = {}};
  if (micro_batch_ >= kept_.size()) kept_.push_back(roll_out(batch, context, loss));
  Rollout& rollout = kept_[micro_batch_++];
  const TokenLogProbs now = token_log_probs(model, rollout.packed, config_.sampling.temperature);
  // At the first update the model is the one that wrote the answers.
  if (!rollout.old.defined()) rollout.old = now.values.detach();
  loss.value = policy_loss(config_, now, rollout, loss.metrics);
  return loss;
}

}  // namespace cosmos::trainer
