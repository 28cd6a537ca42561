// Multiple-choice questions: asked, read, counted.

#include <catch2/catch.hpp>

#include "test/modules/vlm/vlm_models.h"
#include "trainer/recipes/choice.h"

namespace cosmos::trainer {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

const std::vector<std::string> kOptions = {"left", "right", "A robot"};

std::string chosen(const std::string& answer) {
  return chosen_letter(answer, kOptions);
}

}  // namespace

TEST_CASE("an answer's letter is found where there is one", "[choice]") {
  for (const char* answer :
       {"B", " b\n", "(B)", "B.", "b) right", "B: right", "right", "Right.", "B right", "**B**",
        "<think>A or B</think>\n\n<answer>B</answer>", "<think>it is A.</think> B",
        "It moves, so the answer is B.", "Answer: (B)", "The answer is: B"})
    CHECK(chosen(answer) == "B");
  CHECK(chosen("a robot") == "C");  // the option, not A
  for (const char* answer :
       {"", "A car drives", "Because of it", "D", "E.", "the answer is Below", "both A and B"})
    CHECK(chosen(answer) == "");
  CHECK(chosen_letter("D", {}) == "D");
}

TEST_CASE("pass@k is the mean over all draws of k answers", "[choice]") {
  // 5 answers, 2 right: all 10 pairs, 3 of which miss.
  CHECK(pass_at_k(5, 2, 1) == Approx(0.4));
  CHECK(pass_at_k(5, 2, 2) == Approx(0.7));
  CHECK(pass_at_k(5, 2, 4) == 1);
  CHECK(pass_at_k(5, 0, 5) == 0);
  CHECK(pass_at_k(1000, 1, 500) == Approx(0.5));
}

TEST_CASE("results are counted over questions and by category", "[choice]") {
  ChoiceTally tally;
  tally.add({"A", "B", "", "A"}, "A", "x");
  tally.add({"B", "B", "B", "B"}, "A", "y");
  const Json sums = tally.summary();
  CHECK(sums["questions"] == 2);
  CHECK(sums["accuracy"] == 0.25);
  CHECK(sums["without_letter"] == 0.125);
  CHECK(sums["pass@1"] == 0.25);
  CHECK(sums["pass@2"].get<double>() == Approx((1 - 1.0 / 6) / 2));
  CHECK(sums["pass@4"] == 0.5);
  CHECK(sums["by_category"]["x"]["accuracy"] == 0.5);
}

TEST_CASE("questions are read with their options and media", "[choice]") {
  const Json line = {{"videos", {"a.mp4"}},
                     {"image", "b.png"},
                     {"question", "Which way?"},
                     {"options", {"left", "right"}},
                     {"answer", "right"}};
  const ChoiceQuestion question = read_choice_question(line, "q line 1", "Go.");
  CHECK(question.truth == "B");
  const auto& parts = question.conversation.messages.at(0).parts;
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].value == "b.png");
  CHECK(parts[1].value == "a.mp4");
  CHECK(parts[2].value == "Which way?\nA. left\nB. right\nGo.");
  Json other = line;
  other["options"] = {{"A", "(A) left"}, {"B", "(B) right"}};
  other["answer"] = "A";
  CHECK(read_choice_question(other, "q", "").conversation.messages[0].text() ==
        "Which way?\n(A) left\n(B) right");
  const auto error = [&](const char* key, const Json& value) {
    Json bad = line;
    bad[key] = value;
    return error_of([&] { read_choice_question(bad, "q line 1", ""); });
  };
  CHECK_THAT(error("answer", "C"), Contains("q line 1.answer") && Contains("\"C\""));
  CHECK_THAT(error("answer", 3), Contains("expected `answer`"));
  CHECK_THAT(error("options", {"one"}), Contains("2 to 26"));
  CHECK_THAT(error("options", {{"B", "x"}, {"C", "y"}}), Contains("A, B"));
}

}  // namespace cosmos::trainer
