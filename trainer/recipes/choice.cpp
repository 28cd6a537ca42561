#include "trainer/recipes/choice.h"

#include <algorithm>
#include <cctype>

#include "modules/core/fields.h"
#include "trainer/recipes/rewards.h"

namespace cosmos::trainer {
namespace {

using modules::Message;
using modules::MessagePart;

constexpr std::size_t kLetters = 26;

std::string letter(std::size_t option) {
  return {static_cast<char>('A' + option)};
}

// Without white space around it, nor the stars of bold letters.
std::string bare(const std::string& text) {
  return trimmed(text, " \t\r\n*");
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// "B", "(B)", "B.", "b) left" at the head of `text`, "" otherwise. "A robot" is no choice of A.
std::string leading_letter(const std::string& text) {
  const std::size_t at = !text.empty() && text[0] == '(' ? 1 : 0;
  if (at >= text.size() || !std::isalpha(static_cast<unsigned char>(text[at]))) return "";
  const char next = at + 1 < text.size() ? text[at + 1] : '\0';
  if (next != '\0' && std::string(".):,\n").find(next) == std::string::npos) return "";
  return {static_cast<char>(std::toupper(static_cast<unsigned char>(text[at])))};
}

// Of the option whose text this is.
std::string option_letter(const std::string& text, const std::vector<std::string>& options) {
  for (std::size_t i = 0; i < options.size(); ++i) {
    const std::string plain = lower(bare(options[i]));
    for (const std::string& spelled : {plain, plain + ".", lower(letter(i)) + " " + plain})
      if (lower(text) == spelled) return letter(i);
  }
  return "";
}

// Behind the last "answer is" or "answer:".
std::string announced_letter(const std::string& text) {
  const std::string low = lower(text);
  std::size_t end = std::string::npos;
  for (const std::string mark : {"answer is", "answer:"}) {
    const auto at = low.rfind(mark);
    if (at != std::string::npos && (end == std::string::npos || at + mark.size() > end))
      end = at + mark.size();
  }
  if (end == std::string::npos) return "";
  std::string rest = bare(text.substr(end));
  if (!rest.empty() && rest[0] == ':') rest = bare(rest.substr(1));
  const std::size_t at = !rest.empty() && rest[0] == '(' ? 1 : 0;
  if (at >= rest.size() || !std::isupper(static_cast<unsigned char>(rest[at]))) return "";
  return at + 1 < rest.size() && is_word(rest[at + 1]) ? "" : rest.substr(at, 1);
}

std::vector<std::string> read_options(const Json& json, const std::string& where) {
  std::vector<std::string> options;
  if (json.is_object()) {
    for (const auto& [key, text] : json.items()) {
      require(key == letter(options.size()), where, ".options: expected the keys A, B, ..., got ",
              key);
      modules::read_scalar(text, options.emplace_back(), where + ".options." + key);
    }
  } else {
    modules::read_value(json, options, where + ".options", modules::UnknownKeys::kRefuse);
  }
  require(options.size() > 1 && options.size() <= kLetters, where,
          ".options: expected 2 to 26 options, got ", options.size());
  return options;
}

void add_media(const Json& line, const char* key, MessagePart::Kind kind, Message& message,
               const std::string& where) {
  for (const std::string& name : {std::string(key), std::string(key) + "s"}) {
    if (!line.contains(name)) continue;
    std::vector<std::string> paths;
    if (line[name].is_string()) {
      paths.push_back(line[name].get<std::string>());
    } else {
      modules::read_value(line[name], paths, where + "." + name, modules::UnknownKeys::kRefuse);
    }
    for (const auto& path : paths) message.parts.push_back({.kind = kind, .value = path});
  }
}

std::string question_text(const Json& line, const std::vector<std::string>& options,
                          const std::string& instruction, const std::string& where) {
  std::string text;
  modules::read_scalar(line["question"], text, where + ".question");
  for (std::size_t i = 0; i < options.size(); ++i) {
    const bool labelled = leading_letter(options[i]) == letter(i) && options[i].size() > 1;
    text += "\n" + (labelled ? "" : letter(i) + ". ") + options[i];
  }
  return instruction.empty() ? text : text + "\n" + instruction;
}

std::string read_truth(const Json& line, const std::vector<std::string>& options,
                       const std::string& where) {
  require(line.contains("answer") && line["answer"].is_string(), where,
          ": expected `answer`, the right option's letter");
  const std::string text = line["answer"].get<std::string>();
  std::string truth = option_letter(bare(text), options);
  if (truth.empty()) truth = leading_letter(bare(text));
  require(!truth.empty() &&
              (options.empty() || static_cast<std::size_t>(truth[0] - 'A') < options.size()),
          where, ".answer: expected an option's letter, got \"", text, "\"");
  return truth;
}

}  // namespace

ChoiceQuestion read_choice_question(const Json& line, const std::string& where,
                                    const std::string& instruction) {
  require(line.is_object(), where, ": expected an object");
  ChoiceQuestion question;
  if (line.contains("options")) question.options = read_options(line["options"], where);
  question.truth = read_truth(line, question.options, where);
  if (!line.contains("question")) {
    question.conversation = modules::read_conversation(line, where);
    return question;
  }
  if (line.contains("system")) {
    Message system{.role = "system", .parts = {MessagePart{}}};
    modules::read_scalar(line["system"], system.parts[0].value, where + ".system");
    question.conversation.messages.push_back(std::move(system));
  }
  Message message{.role = "user", .parts = {}};
  add_media(line, "image", MessagePart::Kind::kImage, message, where);
  add_media(line, "video", MessagePart::Kind::kVideo, message, where);
  message.parts.push_back({.kind = MessagePart::Kind::kText,
                           .value = question_text(line, question.options, instruction, where)});
  question.conversation.messages.push_back(std::move(message));
  return question;
}

std::string chosen_letter(const std::string& answer, const std::vector<std::string>& options) {
  const std::string thought = "</think>";
  const auto end = answer.rfind(thought);
  const std::string text =
      bare(answer_text(end == std::string::npos ? answer : answer.substr(end + thought.size())));
  std::string chosen = option_letter(text, options);
  if (chosen.empty()) chosen = leading_letter(text);
  if (chosen.empty()) chosen = announced_letter(text);
  const bool known = chosen.empty() || options.empty() ||
                     static_cast<std::size_t>(chosen[0] - 'A') < options.size();
  return known ? chosen : "";
}

double pass_at_k(int64_t n, int64_t c, int64_t k) {
  require(k >= 1 && k <= n && c >= 0 && c <= n, "pass_at_k: expected 1 <= k <= n, 0 <= c <= n");
  // C(n - c, k) / C(n, k) as a product: binomials of a few hundred answers overflow.
  double miss = 1;
  for (int64_t i = 0; i < k; ++i)
    miss *= static_cast<double>(std::max<int64_t>(n - c - i, 0)) / static_cast<double>(n - i);
  return 1 - miss;
}

void ChoiceTally::add(const std::vector<std::string>& letters, const std::string& truth,
                      const std::string& category) {
  const auto n = static_cast<int64_t>(letters.size());
  require(n > 0 && (samples_ == 0 || samples_ == n), "every question needs as many answers");
  samples_ = n;
  const int64_t right = std::count(letters.begin(), letters.end(), truth);
  const int64_t none = std::count(letters.begin(), letters.end(), "");
  const auto add_to = [&](Sums& sums) {
    ++sums.questions;
    sums.correct += static_cast<double>(right) / static_cast<double>(n);
    sums.without_letter += static_cast<double>(none) / static_cast<double>(n);
    for (int64_t k = 1; k < n; k *= 2) sums.pass[k] += pass_at_k(n, right, k);
    sums.pass[n] += pass_at_k(n, right, n);
  };
  add_to(all_);
  if (!category.empty()) add_to(by_category_[category]);
}

Json ChoiceTally::row(const Sums& sums) {
  const auto count = static_cast<double>(std::max<int64_t>(sums.questions, 1));
  Json row = {{"questions", sums.questions},
              {"accuracy", sums.correct / count},
              {"without_letter", sums.without_letter / count}};
  for (const auto& [k, sum] : sums.pass) row["pass@" + std::to_string(k)] = sum / count;
  return row;
}

Json ChoiceTally::summary() const {
  Json json = row(all_);
  json["samples"] = samples_;
  for (const auto& [category, sums] : by_category_) json["by_category"][category] = row(sums);
  return json;
}

}  // namespace cosmos::trainer
