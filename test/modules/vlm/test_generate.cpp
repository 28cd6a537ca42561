// Generation: the cache against reading everything again, stops, draws, log-probabilities.

#include <catch2/catch.hpp>

#include "modules/vlm/generate.h"
#include "test/modules/vlm/vlm_models.h"

namespace cosmos::modules {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

// The likeliest next token without a cache. Text only: its positions simply go on.
std::vector<int64_t> plain_greedy(LanguageModel& model, Sequence sequence, int64_t count) {
  torch::NoGradGuard no_grad;
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    const Tensor hidden = model.forward(pack_sequences(model, {sequence}));
    tokens.push_back(model.logits(hidden)[0][-1].argmax().item<int64_t>());
    sequence.input_ids = torch::cat({sequence.input_ids, ids({tokens.back()})});
  }
  return tokens;
}

}  // namespace

TEST_CASE("cached generation writes what reading everything again would", "[vlm][generate]") {
  auto model = tiny_qwen3_vl();
  const std::vector<Sequence> prompts = {text_sequence(6), image_sequence(), text_sequence(1, 2)};
  std::vector<std::pair<int64_t, int64_t>> streamed;
  const GenerateOptions options{.max_new_tokens = 12,
                                .on_token = [&](int64_t answer, int64_t token) {
                                  streamed.emplace_back(answer, token);
                                  return true;
                                }};
  const std::vector<Answer> answers = generate(*model, prompts, options);
  REQUIRE(answers.size() == 3);
  CHECK(streamed.size() == 36);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    CHECK(answers[p].tokens == plain_greedy(*model, prompts[p], 12));
    CHECK_FALSE(answers[p].stopped);
    // Its log-probabilities are those of the answer read as a whole.
    Sequence whole = prompts[p];
    whole.input_ids = torch::cat({whole.input_ids, ids(answers[p].tokens)});
    const Tensor log_probs = answer_log_probs(*model, {whole}, {prompts[p].length()})[0];
    const Tensor made = torch::tensor(answers[p].log_probs, torch::kFloat32);
    CHECK((log_probs - made).abs().max().item<double>() < 1e-4);
    CHECK(log_probs.requires_grad());
  }
}

TEST_CASE("an image's token that a model writes is text", "[vlm][generate]") {
  auto model = tiny_qwen3_vl();
  Sequence whole = image_sequence();
  const int64_t begin = whole.length();
  whole.input_ids = torch::cat({whole.input_ids, ids({12, 5, 6, 13})});
  CHECK_THAT(error_of([&] { pack_sequences(*model, {whole}); }), Contains("more images"));
  CHECK(answer_log_probs(*model, {whole}, {begin})[0].isfinite().all().item<bool>());
}

TEST_CASE("answers end at a stop token and rows leave the batch", "[vlm][generate]") {
  auto model = tiny_qwen3_vl();
  const std::vector<Sequence> prompts = {text_sequence(6), image_sequence(), text_sequence(3, 2)};
  const auto full = generate(*model, prompts, {.max_new_tokens = 8});
  const int64_t stop = full[1].tokens[2];
  const auto ended = generate(*model, prompts, {.max_new_tokens = 8, .stop_tokens = {stop}});
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const auto& all = full[p].tokens;
    const auto end = std::find(all.begin(), all.end(), stop);
    CHECK(ended[p].stopped == (end != all.end()));
    CHECK(ended[p].tokens == std::vector<int64_t>(all.begin(), end == all.end() ? end : end + 1));
  }
}

TEST_CASE("draws follow the distribution, and only seed and index", "[vlm][generate]") {
  auto model = tiny_qwen3_vl();
  GenerateOptions options{.sampling = {.do_sample = true, .temperature = 2.0, .top_k = 0},
                          .max_new_tokens = 1,
                          .answers = 400,
                          .seed = 3};
  const auto answers = generate(*model, {text_sequence(4)}, options);
  torch::NoGradGuard no_grad;
  const Tensor hidden = model->forward(pack_sequences(*model, {text_sequence(4)}));
  const Tensor p = (model->logits(hidden)[0][-1] / 2.0).softmax(0);
  Tensor seen = torch::zeros({p.size(0)});
  for (const Answer& answer : answers) {
    seen[answer.tokens[0]] += 1.0 / 400;
    CHECK(answer.log_probs[0] == Approx(p[answer.tokens[0]].log().item<double>()).margin(1e-4));
  }
  CHECK((seen - p).abs().sum().item<double>() < 0.35);  // 40 classes, 400 draws

  options = {.sampling = {.do_sample = true}, .max_new_tokens = 6, .answers = 3, .seed = 5};
  const auto together = generate(*model, {text_sequence(4), text_sequence(2, 1)}, options);
  options.first_index = 3;
  const auto second = generate(*model, {text_sequence(2, 1)}, options);
  for (std::size_t i = 0; i < 3; ++i) CHECK(together[3 + i].tokens == second[i].tokens);
  CHECK(together[0].tokens != together[1].tokens);
}

TEST_CASE("logits are processed as transformers does", "[vlm][generate]") {
  const Tensor logits = torch::tensor({2.0f, -1.0f, 0.5f, 1.5f});
  const double inf = std::numeric_limits<double>::infinity();
  const auto is = [](const Tensor& got, std::vector<double> want) {
    return torch::allclose(got.to(torch::kFloat64), torch::tensor(want, torch::kFloat64), 1e-5,
                           1e-6);
  };
  CHECK(is(process_logits(logits, {.repetition_penalty = 2}, {0, 1, 0}), {1, -2, 0.5, 1.5}));
  CHECK(is(process_logits(logits, {.do_sample = true, .temperature = 0.5, .top_k = 2}, {}),
           {4, -inf, -inf, 3}));
  // p = 0.52, 0.026, 0.12, 0.32: the two likeliest reach 0.8 together.
  CHECK(is(process_logits(logits, {.do_sample = true, .top_k = 0, .top_p = 0.8}, {}),
           {2, -inf, -inf, 1.5}));
  CHECK(is(process_logits(logits, {.do_sample = true, .top_k = 0, .top_p = 0.1}, {}),
           {2, -inf, -inf, -inf}));
  Philox random(0, Purpose::kToken);
  CHECK(choose_token(logits, {}, random) == 0);
  CHECK_THAT(error_of([&] { choose_token(logits / 0.0 * 0.0, {}, random); }),
             Contains("not numbers"));
  CHECK_THAT(error_of([] { SamplingConfig{.temperature = 0}.check("generation"); }),
             Contains("generation: temperature"));
}

}  // namespace cosmos::modules
