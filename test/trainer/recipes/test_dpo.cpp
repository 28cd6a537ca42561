// The dpo recipe: its losses against their formulas, its reference, margins that rise.

#include <catch2/catch.hpp>
#include <cmath>

#include "modules/lora/lora.h"
#include "test/trainer/recipes/toy_conversations.h"
#include "trainer/loop/trainer.h"
#include "trainer/recipes/dpo.h"

namespace cosmos::trainer {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

std::string pair_line(const std::string& prompt, const std::string& chosen,
                      const std::string& rejected) {
  return Json({{"prompt", prompt}, {"chosen", chosen}, {"rejected", rejected}}).dump();
}

std::shared_ptr<DpoRecipe> make(const std::filesystem::path& dir, Json more = Json::object()) {
  torch::manual_seed(5);
  modules::register_builtin_models();
  write_lines(dir / "pairs.jsonl",
              {pair_line("abc", "yes", "no"), pair_line("de", "xyz", "zyx"),
               pair_line("f", "left", "right"), pair_line("gh", "up", "down")});
  Json config = toy_sft(dir);
  config["data"] = {{"files", {(dir / "pairs.jsonl").string()}}};
  config.update(more);
  return std::make_shared<DpoRecipe>(config, "toy.json: recipe", letter_encoder);
}

double loss_of(const DpoConfig& config) {
  const Tensor now = torch::tensor({-1.0, -3.0, -2.0, -2.5}),
               before = torch::tensor({-2.0, -2.0, -2.0, -3.0});
  std::map<std::string, Tensor> metrics;  // h = 2, -0.5
  const double loss = preference_loss(config, now, before, metrics).item<double>();
  CHECK(metrics["accuracy"].item<double>() == 0.5);
  CHECK(metrics["margin"].item<double>() == Approx(config.beta * 0.75));
  return loss;
}

double log_sigmoid(double x) {
  return -std::log1p(std::exp(-x));
}

}  // namespace

TEST_CASE("preference losses are their formulas", "[recipe][dpo]") {
  DpoConfig config;
  config.beta = 0.5;
  CHECK(loss_of(config) == Approx(-(log_sigmoid(1) + log_sigmoid(-0.25)) / 2));
  config.label_smoothing = 0.1;
  CHECK(loss_of(config) == Approx(-(0.9 * (log_sigmoid(1) + log_sigmoid(-0.25)) +
                                    0.1 * (log_sigmoid(-1) + log_sigmoid(0.25))) /
                                  2));
  config.loss = "ipo";
  CHECK(loss_of(config) == Approx((1.0 + 1.5 * 1.5) / 2));
}

TEST_CASE("the reference is the model before training, with adapters and without",
          "[recipe][dpo]") {
  const TempFolder dir;
  for (const bool lora : {false, true}) {
    auto recipe =
        make(dir.path(), lora ? Json{{"lora", {{"rank", 4}, {"alpha", 8}}}} : Json::object());
    const auto data = recipe->train_data();
    const Batch batch = collate({data->get(0, 0, 0), data->get(1, 0, 1)});
    const Loss start = recipe->loss(batch, {});
    CHECK(start.value.item<double>() == Approx(std::log(2.0)));
    CHECK(start.metrics.at("margin").item<double>() == Approx(0).margin(1e-6));
    torch::NoGradGuard no_grad;
    for (auto& parameter : recipe->model()->parameters())
      if (parameter.requires_grad()) parameter.add_(0.05 * torch::randn_like(parameter));
    const Loss moved = recipe->loss(batch, {});
    CHECK(std::abs(moved.metrics.at("margin").item<double>()) > 1e-5);
    CHECK(std::abs(moved.metrics.at("reward_chosen").item<double>()) > 1e-5);
  }
}

TEST_CASE("DPO raises the chosen answers over the rejected ones", "[recipe][dpo]") {
  const TempFolder dir;
  for (const Json& more :
       {Json::object(), Json{{"lora", {{"rank", 8}, {"alpha", 32}}}}, Json{{"loss", "ipo"}},
        Json{{"sft_weight", 0.5}, {"length_normalized", true}}}) {
    INFO(more.dump());
    const auto run = dir / ("run" + std::to_string(std::hash<std::string>()(more.dump())));
    const Config config = parse_config({{"recipe", {{"type", "toy-dpo"}}},
                                        {"trainer",
                                         {{"steps", 30},
                                          {"micro_batch_size", 4},
                                          {"threads", 1},
                                          {"loader_threads", 0},
                                          {"optimizer", {{"lr", 3e-3}, {"weight_decay", 0}}}}},
                                        {"run", {{"dir", run.string()}}}},
                                       "toy.json");
    CHECK(Trainer(config, make(dir.path(), more)).run().finished);
    std::ifstream in(run / "metrics.jsonl");
    Json last;
    for (std::string line; std::getline(in, line);) last = Json::parse(line);
    CHECK(last["accuracy"] == 1.0);
    CHECK(last["margin"] > 0.1);
  }
}

TEST_CASE("lines that are no pairs are named", "[recipe][dpo]") {
  const auto refused = [](const std::string& line) {
    return error_of([&] { read_preference_line(Json::parse(line), "f line 1"); });
  };
  const auto read =
      read_preference_line(Json::parse(R"({"messages": [{"role": "user", "content": "q"}],
                      "chosen": {"role": "assistant", "content": "a"},
                      "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]})"),
                           "f line 1");
  CHECK(read.conversations[0].messages.back().text() == "a");
  CHECK(read.conversations[1].messages.back().text() == "b");
  CHECK_THAT(refused(R"({"prompt": "q", "chosen": "a"})"), Contains("prompt, chosen and rejected"));
  CHECK_THAT(refused(R"({"prompt": "q", "chosen": "a", "rejected": ""})"),
             Contains("answer is empty"));
  CHECK_THAT(
      refused(R"({"prompt": "q", "chosen": "a", "rejected": {"role": "user", "content": "b"}})"),
      Contains("f line 1.rejected") && Contains("got \"user\""));
}

}  // namespace cosmos::trainer
