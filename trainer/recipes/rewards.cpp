#include "trainer/recipes/rewards.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>

#include "modules/text/regex.h"
#include "trainer/recipes/line_program.h"

namespace cosmos::trainer {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

double format_score(const std::string& answer, const std::string&) {
  const std::string open = "<think>", between = "</think>\n\n<answer>", close = "</answer>";
  const auto middle = answer.find(between);
  if (answer.rfind(open, 0) != 0 || middle == std::string::npos || !ends_with(answer, close))
    return 0;
  // Each mark once: thoughts are not nested, and nothing stands behind the answer.
  for (const std::string mark : {"<think>", "</think>", "<answer>", "</answer>"})
    if (answer.find(mark) != answer.rfind(mark)) return 0;
  return 1;
}

double choice_score(const std::string& answer, const std::string& truth) {
  return lower(answer_text(answer)) == lower(trimmed(truth)) ? 1 : 0;
}

using Box = std::array<double, 4>;

// The last four numbers of a text.
std::optional<Box> read_box(const std::string& text) {
  std::vector<double> numbers;
  for (std::size_t i = 0; i < text.size();) {
    const bool begins = std::isdigit(static_cast<unsigned char>(text[i])) ||
                        (text[i] == '-' && i + 1 < text.size() &&
                         std::isdigit(static_cast<unsigned char>(text[i + 1])));
    if (!begins) {
      ++i;
      continue;
    }
    char* end = nullptr;
    numbers.push_back(std::strtod(text.c_str() + i, &end));
    i = static_cast<std::size_t>(end - text.c_str());
  }
  if (numbers.size() < 4) return std::nullopt;
  Box box{};
  std::copy(numbers.end() - 4, numbers.end(), box.begin());
  return box;
}

double area(const Box& box) {
  return std::max(0.0, box[2] - box[0]) * std::max(0.0, box[3] - box[1]);
}

double box_score(const std::string& answer, const std::string& truth) {
  const auto got = read_box(answer_text(answer)), want = read_box(truth);
  require(want.has_value(), "box_iou: the truth \"", truth, "\" is no box of four numbers");
  if (!got) return 0;
  const Box common = {std::max((*got)[0], (*want)[0]), std::max((*got)[1], (*want)[1]),
                      std::min((*got)[2], (*want)[2]), std::min((*got)[3], (*want)[3])};
  const double all = area(*got) + area(*want) - area(common);
  return all > 0 ? area(common) / all : 0;
}

class FunctionReward : public Reward {
 public:
  using Function = std::function<double(const std::string&, const std::string&)>;
  explicit FunctionReward(Function function) : function_(std::move(function)) {}
  double score(const std::string& answer, const std::string& truth) override {
    return function_(answer, truth);
  }

 private:
  Function function_;
};

class ProgramReward : public Reward {
 public:
  ProgramReward(const std::vector<std::string>& command, std::string where)
      : program_(command, where), where_(std::move(where)) {}

  double score(const std::string& answer, const std::string& truth) override {
    const std::string line = program_.ask(Json({{"answer", answer}, {"truth", truth}}).dump());
    char* end = nullptr;
    const double value = std::strtod(line.c_str(), &end);
    require(end != line.c_str() && std::isfinite(value), where_,
            ".command: expected a number on each line, got \"", line, "\"");
    return value;
  }

 private:
  LineProgram program_;
  std::string where_;
};

}  // namespace

std::string trimmed(const std::string& text, const char* blank) {
  const auto begin = text.find_first_not_of(blank);
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(blank) - begin + 1);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string answer_text(const std::string& answer) {
  const std::string open = "<answer>", close = "</answer>";
  const auto begin = answer.rfind(open);
  if (begin == std::string::npos) return trimmed(answer);
  const auto end = answer.find(close, begin);
  return trimmed(answer.substr(begin + open.size(),
                               end == std::string::npos ? end : end - begin - open.size()));
}

std::unique_ptr<Reward> make_reward(const RewardConfig& config, const std::string& where) {
  if (config.type == "format") return std::make_unique<FunctionReward>(format_score);
  if (config.type == "choice") return std::make_unique<FunctionReward>(choice_score);
  if (config.type == "box_iou") return std::make_unique<FunctionReward>(box_score);
  if (config.type == "program") {
    require(!config.command.empty(), where, ".command: expected a program and its arguments");
    return std::make_unique<ProgramReward>(config.command, where);
  }
  const std::string near =
      modules::nearest(config.type, {"format", "choice", "box_iou", "regex", "program"});
  require(config.type == "regex", where, ".type: \"", config.type, "\" is no reward",
          near.empty() ? "" : " (did you mean " + near + "?)");
  using modules::text::Regex;
  if (config.pattern.empty())
    return std::make_unique<FunctionReward>(
        [where](const std::string& answer, const std::string& truth) {
          return Regex(truth, where + ": the truth").find_all(answer).empty() ? 0.0 : 1.0;
        });
  return std::make_unique<FunctionReward>([regex = Regex(config.pattern, where + ".pattern")](
                                              const std::string& answer, const std::string&) {
    return regex.find_all(answer).empty() ? 0.0 : 1.0;
  });
}

}  // namespace cosmos::trainer
