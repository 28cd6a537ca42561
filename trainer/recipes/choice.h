#pragma once

// Multiple-choice questions: how they are asked, what an answer chose, how many were right.
//
//   {"video": "a.mp4", "question": "Which way?", "options": ["left", "right"], "answer": "B"}
//
// pass@k of a question with c right among n answers is 1 - C(n - c, k) / C(n, k): the chance that
// one of k answers drawn without return is right, which does not depend on which k were drawn
// (Chen et al. 2021).

#include <map>
#include <string>
#include <vector>

#include "modules/vlm/conversation.h"

namespace cosmos::trainer {

struct ChoiceQuestion {
  modules::Conversation conversation;  ///< ends with the question
  std::vector<std::string> options;    ///< texts of A, B, ...; none where the question has them
  std::string truth;                   ///< a letter
};

/// Reads a line with `question`, `options` (a list, or {"A": text, ...}), `answer` (a letter, or an
/// option's text) and `image`, `images`, `video`, `videos` (a path or a list); or a conversation
/// that ends with its question, and `answer`. `instruction` follows the options. Throws Error with
/// `where` in front.
ChoiceQuestion read_choice_question(const Json& line, const std::string& where,
                                    const std::string& instruction);

/// The letter that an answer chose, "" where it cannot be told. Looked at: what stands in
/// <answer>...</answer>, else what follows </think>. Taken: a letter alone ("B", "(b)", "B. left",
/// "B) left"), an option's text, a letter behind "answer is" or "answer:".
std::string chosen_letter(const std::string& answer, const std::vector<std::string>& options);

/// 1 - C(n - c, k) / C(n, k). 1 <= k <= n.
double pass_at_k(int64_t n, int64_t c, int64_t k);

/// Results of a set of questions.
class ChoiceTally {
 public:
  /// `letters`: of the answers to one question. Each question has as many.
  void add(const std::vector<std::string>& letters, const std::string& truth,
           const std::string& category = "");
  /// questions, samples, accuracy (of a single answer), pass@1, pass@2, pass@4, ... up to the
  /// samples, without_letter (share of answers that chose nothing), by category where there are
  /// any.
  Json summary() const;

 private:
  struct Sums {
    int64_t questions = 0;
    double correct = 0, without_letter = 0;  ///< shares of a question's answers
    std::map<int64_t, double> pass;
  };
  static Json row(const Sums& sums);

  int64_t samples_ = 0;
  Sums all_;
  std::map<std::string, Sums> by_category_;
};

}  // namespace cosmos::trainer
