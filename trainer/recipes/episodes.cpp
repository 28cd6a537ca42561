#include "trainer/recipes/episodes.h"

#include <numeric>

namespace cosmos::trainer {
namespace {

using modules::Answer;
using modules::kIgnoreToken;
using modules::Sequence;

constexpr const char* kNoCall =
    "error: expected {\"name\": ..., \"arguments\": {...}} in <tool_call>...</tool_call>";

// Adds tokens to the episode, learned ones or read ones.
void append(Episode& episode, const std::vector<int64_t>& tokens, bool learned) {
  Tensor& ids = episode.sequence.input_ids;
  const Tensor more = torch::tensor(tokens, torch::kInt64).to(ids.device());
  ids = torch::cat({ids, more});
  episode.labels =
      torch::cat({episode.labels, learned ? more : torch::full_like(more, kIgnoreToken)});
}

Episode begin(const Sequence& prompt) {
  Episode episode{.sequence = prompt, .labels = torch::full_like(prompt.input_ids, kIgnoreToken)};
  episode.sequence.answer_begin = prompt.length();
  return episode;
}

void add_turn(Episode& episode, const Answer& answer, const modules::ConversationEncoder& encoder) {
  append(episode, answer.tokens, /*learned=*/true);
  episode.text = encoder.decode(answer.tokens);
  episode.turns.push_back({{"answer", episode.text}});
  episode.tokens += static_cast<int64_t>(answer.tokens.size());
  episode.stopped = answer.stopped;
}

}  // namespace

void ToolConfig::check(const std::string& where) const {
  require(!command.empty(), where, ".command: expected a program and its arguments");
  require(max_turns > 1, where, ".max_turns: expected at least 2, got ", max_turns);
}

std::vector<Json> tool_calls(const std::string& answer) {
  const std::string open = "<tool_call>", close = "</tool_call>";
  std::vector<Json> calls;
  for (std::size_t at = 0; (at = answer.find(open, at)) != std::string::npos;) {
    at += open.size();
    const std::size_t end = answer.find(close, at);
    const Json call = Json::parse(answer.substr(at, end == std::string::npos ? end : end - at),
                                  nullptr, /*allow_exceptions=*/false);
    const bool good = call.is_object() && call.contains("name") && call["name"].is_string();
    calls.push_back(good ? call : Json());
    if (end == std::string::npos) break;
    at = end + close.size();
  }
  return calls;
}

EpisodePlayer::EpisodePlayer(const std::optional<ToolConfig>& config, const std::string& where)
    : config_(config), where_(where + ".tools") {
  if (config_) program_.emplace(config_->command, where_);
}

std::vector<std::string> EpisodePlayer::ask(const std::vector<Json>& calls, int64_t episode,
                                            int64_t turn, const std::string& truth) {
  Json good = Json::array();
  for (const Json& call : calls)
    if (!call.is_null()) good.push_back(call);
  std::vector<std::string> answers;
  if (!good.empty()) {
    const std::string line = program_->ask(
        Json({{"episode", episode}, {"turn", turn}, {"calls", good}, {"truth", truth}}).dump());
    const Json reply = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    require(reply.is_object() && reply.contains("results") && reply["results"].is_array() &&
                reply["results"].size() == good.size(),
            where_, ".command: expected {\"results\": [...]} with ", good.size(),
            " results, got \"", line, "\"");
    for (const Json& result : reply["results"])
      answers.push_back(result.is_string() ? result.get<std::string>() : result.dump());
  }
  std::vector<std::string> results;
  std::size_t next = 0;
  for (const Json& call : calls) results.push_back(call.is_null() ? kNoCall : answers[next++]);
  return results;
}

std::vector<Episode> EpisodePlayer::play(modules::LanguageModel& model,
                                         const modules::ConversationEncoder& encoder,
                                         const std::vector<Sequence>& prompts,
                                         const std::vector<std::string>& truths,
                                         const modules::GenerateOptions& options) {
  std::vector<Episode> episodes;
  const std::vector<Answer> first = generate(model, prompts, options);
  const auto group = static_cast<std::size_t>(options.answers);
  for (std::size_t i = 0; i < first.size(); ++i)
    add_turn(episodes.emplace_back(begin(prompts[i / group])), first[i], encoder);

  const int64_t turns = config_ ? config_->max_turns : 1;
  std::vector<std::size_t> open(episodes.size());
  std::iota(open.begin(), open.end(), std::size_t{0});
  for (int64_t turn = 1; turn < turns; ++turn) {
    std::vector<std::size_t> calling;
    std::vector<Sequence> so_far;
    for (const std::size_t i : open) {
      Episode& episode = episodes[i];
      const std::vector<Json> calls = tool_calls(episode.text);
      if (!episode.stopped || calls.empty()) continue;
      const std::vector<std::string> results =
          ask(calls, played_ + static_cast<int64_t>(i), turn - 1, truths[i / group]);
      episode.turns.back()["results"] = results;
      append(episode, encoder.tool_turn(results), /*learned=*/false);
      calling.push_back(i);
      so_far.push_back(episode.sequence);
    }
    if (calling.empty()) break;
    // Draws of a later turn are not those of an earlier one.
    modules::GenerateOptions later = options;
    later.answers = 1;
    later.seed = options.seed + static_cast<uint64_t>(turn) * 0x9e3779b97f4a7c15U;
    const std::vector<Answer> next = generate(model, so_far, later);
    for (std::size_t c = 0; c < calling.size(); ++c)
      add_turn(episodes[calling[c]], next[c], encoder);
    open = std::move(calling);
  }
  played_ += static_cast<int64_t>(episodes.size());
  return episodes;
}

}  // namespace cosmos::trainer
