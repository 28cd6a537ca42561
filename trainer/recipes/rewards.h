#pragma once

// Verifiable rewards of answers, each in [0, 1].
//
//   format   the answer is <think>...</think>, one blank line, <answer>...</answer>, nothing else
//   choice   what stands in <answer> (or the whole answer) is the truth, letter case aside
//   box_iou  intersection over union of the answer's last four numbers and the truth's,
//            [x1, y1, x2, y2]
//   regex    the answer matches `pattern`, or, where that is empty, the truth as a pattern
//   program  a number that `command` prints for a line {"answer": ..., "truth": ...} on its stdin;
//            it is started once and reads line by line

#include <memory>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::trainer {

struct RewardConfig {
  std::string type;
  double weight = 1;
  std::string pattern;
  std::vector<std::string> command;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("type", type, "format, choice, box_iou, regex or program");
    v("weight", weight, "factor of this reward in the sum");
    v("pattern", pattern, "regex: what the answer must match; empty: the truth");
    v("command", command, "program: the program and its arguments");
  }
};

class Reward {
 public:
  virtual ~Reward() = default;
  virtual double score(const std::string& answer, const std::string& truth) = 0;
};

/// Throws Error on an unknown type or a setting that its type lacks; `where` names the config.
std::unique_ptr<Reward> make_reward(const RewardConfig& config, const std::string& where);

/// `text` without white space, or the characters of `blank`, around it.
std::string trimmed(const std::string& text, const char* blank = " \t\r\n");
std::string lower(std::string text);

/// The text between <answer> and </answer>, the last such, without white space around; the whole
/// answer's where there is none.
std::string answer_text(const std::string& answer);

}  // namespace cosmos::trainer
