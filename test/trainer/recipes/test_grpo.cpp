// The grpo recipe: advantages and losses against their formulas, rewards, a task from chance up.

#include <catch2/catch.hpp>
#include <cmath>

#include "test/trainer/recipes/toy_conversations.h"
#include "trainer/loop/trainer.h"
#include "trainer/recipes/grpo.h"

namespace cosmos::trainer {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

std::string question(const std::string& text, const std::string& truth) {
  const Json user = {{"role", "user"}, {"content", text}};
  return Json({{"messages", Json::array({user})}, {"answer", truth}}).dump();
}

// Four questions, the answer to each one letter.
std::shared_ptr<GrpoRecipe> make(const std::filesystem::path& dir, Json more = Json::object()) {
  torch::manual_seed(5);
  modules::register_builtin_models();
  write_lines(dir / "q.jsonl",
              {question("a", "^w"), question("b", "^x"), question("c", "^y"), question("d", "^z")});
  Json config = toy_sft(dir);
  config["data"] = {{"files", {(dir / "q.jsonl").string()}}};
  config["rewards"] = {{{"type", "regex"}}};
  config["max_new_tokens"] = 2;
  config["answers"] = 32;
  config.update(more);
  return std::make_shared<GrpoRecipe>(config, "toy.json: recipe", letter_encoder);
}

double scored(const std::string& type, const std::string& answer, const std::string& truth,
              const std::string& pattern = "") {
  return make_reward({.type = type, .weight = 1, .pattern = pattern, .command = {}}, "r")
      ->score(answer, truth);
}

// Two answers of one and two tokens with advantages 1 and -1.
double loss_of(const GrpoConfig& config, std::vector<double> now, std::vector<double> old) {
  const TokenLogProbs tokens{
      .values = torch::tensor(now), .sequence = ids({0, 1, 1}), .sequences = 2};
  const Rollout rollout{.packed = {},
                        .advantage = torch::tensor({1.0, -1.0}),
                        .counts = torch::ones({2}, torch::kBool),
                        .old = torch::tensor(old),
                        .reference = torch::tensor(old) + 0.1};
  std::map<std::string, Tensor> metrics;
  return policy_loss(config, tokens, rollout, metrics).item<double>();
}

}  // namespace

TEST_CASE("advantages compare the answers to one question", "[recipe][grpo]") {
  const Tensor rewards = torch::tensor({1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5});
  const Tensor plain = group_advantages(rewards, 4, false);
  CHECK(torch::allclose(plain, torch::tensor({0.75, -0.25, -0.25, -0.25, 0.0, 0.0, 0.0, 0.0})));
  const Tensor scaled = group_advantages(rewards, 4, true);
  CHECK(torch::allclose(scaled.narrow(0, 0, 4), plain.narrow(0, 0, 4) / 0.5, 1e-4));
}

TEST_CASE("policy losses are their formulas", "[recipe][grpo]") {
  GrpoConfig config;
  config.max_new_tokens = 4;
  const std::vector<double> old = {-1, -2, -3};
  // Ratios 1.5, 0.5 and 2; clipped to [0.8, 1.2]: -1.2 for the good one, 0.8 and 2 for the bad.
  const std::vector<double> now = {-1 + std::log(1.5), -2 + std::log(0.5), -3 + std::log(2.0)};
  CHECK(loss_of(config, now, old) == Approx((-1.2 + 0.8 + 2) / 3));
  config.aggregation = "sequence";
  CHECK(loss_of(config, now, old) == Approx((-1.2 + 1.4) / 2));
  config.aggregation = "length";
  CHECK(loss_of(config, now, old) == Approx((-1.2 + 0.8 + 2) / 8));
  config.aggregation = "token";
  config.clip_high = 0.28;
  CHECK(loss_of(config, now, old) == Approx((-1.28 + 0.8 + 2) / 3));
  config.dual_clip = 1.5;
  CHECK(loss_of(config, now, old) == Approx((-1.28 + 0.8 + 1.5) / 3));
  config.ratio = "sequence";  // the second answer's ratio is sqrt(0.5 * 2) = 1
  CHECK(loss_of(config, now, old) == Approx((-1.28 + 1 + 1) / 3));
  config.kl_beta = 0.5;
  CHECK(loss_of(config, old, old) ==
        Approx((-1 + 1 + 1) / 3.0 + 0.5 * (std::exp(0.1) - 0.1 - 1)).epsilon(1e-4));
}

TEST_CASE("rewards", "[recipe][grpo]") {
  const std::string good = "<think>a < b</think>\n\n<answer> B </answer>";
  CHECK(scored("format", good, "") == 1);
  CHECK(scored("format", good + " ", "") == 0);
  CHECK(scored("format", "<think>a</think>\n<answer>B</answer>", "") == 0);
  CHECK(scored("format", "<think>a<think>b</think>\n\n<answer>B</answer>", "") == 0);
  CHECK(scored("choice", good, "b") == 1);
  CHECK(scored("choice", " b\n", "B") == 1);
  CHECK(scored("choice", "B or C", "B") == 0);
  CHECK(scored("box_iou", "it is [0, 0, 2, 2]", "[1, 0, 3, 2]") == Approx(1.0 / 3));
  CHECK(scored("box_iou", "nowhere", "[1, 0, 3, 2]") == 0);
  CHECK(scored("regex", "abc 12", "", "[0-9]+$") == 1);
  CHECK(scored("regex", "abc", "^b") == 0);
  CHECK_THAT(error_of([] { scored("formats", "", ""); }), Contains("did you mean format"));
  auto length = make_reward(
      {.type = "program", .command = {"sh", "-c", "while read -r line; do echo ${#line}; done"}},
      "r");
  CHECK(length->score("a", "b") == 26);  // {"answer":"a","truth":"b"}
  CHECK(length->score("abc", "b") == 28);
  auto gone = make_reward({.type = "program", .command = {"true"}}, "r");
  CHECK_THAT(error_of([&] { gone->score("a", "b"); }), Contains("has ended"));
  auto missing = make_reward({.type = "program", .command = {"/no/such/program"}}, "r");
  CHECK_THAT(error_of([&] { missing->score("a", "b"); }), Contains("cannot be started"));
}

TEST_CASE("tool calls are found in an answer", "[recipe][grpo]") {
  const auto calls = tool_calls(
      "a <tool_call>\n{\"name\": \"go\", \"arguments\": {\"x\": 1}}\n</tool_call> b "
      "<tool_call>{\"x\": 1}</tool_call><tool_call>{\"name\": \"end\"}");
  REQUIRE(calls.size() == 3);
  CHECK(calls[0]["arguments"]["x"] == 1);
  CHECK(calls[1].is_null());
  CHECK(calls[2]["name"] == "end");
  CHECK(tool_calls("no call").empty());
}

// Every answer with an even token calls a tool.
class CallingEncoder : public LetterEncoder {
 public:
  std::string decode(const std::vector<int64_t>& tokens) const override {
    const std::string text = LetterEncoder::decode(tokens);
    return tokens[0] % 2 == 0 ? text + "<tool_call>{\"name\": \"ask\"}</tool_call>" : text;
  }
};

TEST_CASE("episodes go on with what a program answers, which is not learned", "[recipe][grpo]") {
  torch::manual_seed(5);
  const TempFolder dir;
  modules::register_builtin_models();
  Json json = toy_sft(dir.path());
  auto model = LanguageModelSettings{.model = json["model"]}.load("toy");
  const std::string log = (dir / "asked").string();
  const ToolConfig tools{.command = {"sh", "-c",
                                     "while read -r line; do echo \"$line\" >> " + log +
                                         "; echo '{\"results\": [\"xy\"]}'; done"},
                         .max_turns = 3};
  EpisodePlayer player(tools, "r");
  const CallingEncoder encoder;
  const std::vector<modules::Sequence> prompts = {{.input_ids = ids({9, 12, 10, 9})},
                                                  {.input_ids = ids({9, 13, 13, 10, 9})}};
  const auto episodes = player.play(*model, encoder, prompts, {"s", "t"},
                                    {.sampling = {.do_sample = true, .top_k = 0},
                                     .max_new_tokens = 6,
                                     .stop_tokens = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
                                     .answers = 8,
                                     .seed = 3});
  REQUIRE(episodes.size() == 16);
  std::size_t asked = 0, several = 0;
  for (std::size_t i = 0; i < episodes.size(); ++i) {
    const Episode& episode = episodes[i];
    REQUIRE(episode.labels.sizes() == episode.sequence.input_ids.sizes());
    const Tensor learned = episode.labels.ne(modules::kIgnoreToken);
    CHECK(learned.sum().item<int64_t>() == episode.tokens);
    CHECK(episode.labels.masked_select(learned).equal(
        episode.sequence.input_ids.masked_select(learned)));
    // The tool's turn stands between answers, unlearned: 9 x y 10 9.
    std::size_t results = 0;
    for (const Json& turn : episode.turns) results += turn.contains("results");
    CHECK(results == episode.turns.size() - 1);
    const int64_t prompt = prompts[i / 8].length();
    CHECK(episode.sequence.length() == prompt + episode.tokens + 5 * static_cast<int64_t>(results));
    CHECK(episode.sequence.answer_begin == prompt);
    asked += results;
    several += episode.turns.size() > 1;
  }
  CHECK(several > 2);
  std::ifstream in(log);
  std::vector<Json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  REQUIRE(lines.size() == asked);
  CHECK(lines[0]["calls"][0]["name"] == "ask");
  CHECK(lines.back()["truth"] == "t");
  EpisodePlayer broken(ToolConfig{.command = {"sh", "-c", "while read -r l; do echo 1; done"}},
                       "r");
  CHECK_THAT(error_of([&] {
               broken.play(*model, encoder, prompts, {"s", "t"},
                           {.sampling = {.do_sample = true, .top_k = 0},
                            .max_new_tokens = 6,
                            .stop_tokens = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
                            .answers = 8,
                            .seed = 3});
             }),
             Contains("r.tools.command") && Contains("results"));
}

TEST_CASE("GRPO raises a reward from chance to over nine in ten", "[recipe][grpo]") {
  const TempFolder dir;
  const auto run = dir / "run";
  const Config config = parse_config({{"recipe", {{"type", "toy-grpo"}}},
                                      {"trainer",
                                       {{"steps", 120},
                                        {"micro_batch_size", 4},
                                        {"threads", 1},
                                        {"loader_threads", 0},
                                        {"optimizer", {{"lr", 5e-3}, {"weight_decay", 0}}}}},
                                      {"run", {{"dir", run.string()}}}},
                                     "toy.json");
  const Json more = {{"updates", 2},
                     {"rollouts", (dir / "rollouts.jsonl").string()},
                     {"validation_data", {{"files", {(dir / "q.jsonl").string()}}}}};
  CHECK(Trainer(config, make(dir.path(), more)).run().finished);
  std::ifstream in(run / "metrics.jsonl");
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  CHECK(rows.front()["reward"] < 0.2);
  CHECK(rows.back()["val_reward"] > 0.9);
  std::ifstream log(dir / "rollouts.jsonl");
  std::string first;
  REQUIRE(std::getline(log, first));
  const Json rollout = Json::parse(first);
  for (const char* key : {"step", "answer", "truth", "reward", "regex", "finish_reason"})
    CHECK(rollout.contains(key));
}

}  // namespace cosmos::trainer
