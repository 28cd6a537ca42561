// The sft recipe: packing changes nothing, what is frozen stays, small sets are learned.

#include <catch2/catch.hpp>

#include "modules/core/hollow.h"
#include "modules/hub/model_weights.h"
#include "modules/lora/lora.h"
#include "test/trainer/recipes/toy_conversations.h"
#include "trainer/loop/trainer.h"

namespace cosmos::trainer {
namespace {

using namespace cosmos::test;
using Catch::Matchers::Contains;

Batch batch_of(Dataset& data, const std::vector<int64_t>& items) {
  std::vector<Sample> samples;
  for (const int64_t item : items) samples.push_back(data.get(item, 0, item));
  return collate(samples);
}

// Gradients of sum over batches of weight * loss, by parameter; the loss itself under "loss".
TensorMap gradients(SftRecipe& recipe, const std::vector<Batch>& batches) {
  auto model = recipe.model();
  model->zero_grad();
  double all = 0;
  for (const Batch& batch : batches) all += *recipe.loss_weight(batch);
  Tensor total = torch::zeros({});
  for (const Batch& batch : batches)
    total = total + recipe.loss(batch, {}).value * (*recipe.loss_weight(batch) / all);
  total.backward();
  TensorMap result = {{"loss", total.detach()}};
  for (const auto& item : model->named_parameters())
    if (item.value().grad().defined()) result[item.key()] = item.value().grad().clone();
  return result;
}

std::set<std::string> trained_parts(SftRecipe& recipe) {
  std::set<std::string> parts;
  for (const auto& item : recipe.model()->named_parameters())
    if (item.value().requires_grad()) parts.insert(model_part(item.key()));
  return parts;
}

RunResult train(const TempFolder& dir, const std::string& run, Json trainer, Json recipe = {}) {
  trainer.update({{"threads", 1}, {"loader_threads", 0}});
  const Config config = parse_config({{"recipe", {{"type", "toy-sft"}}},
                                      {"trainer", trainer},
                                      {"run", {{"dir", (dir / run).string()}}}},
                                     "toy.json");
  return Trainer(config, toy_recipe(dir.path(), recipe.is_null() ? Json::object() : recipe)).run();
}

std::vector<Json> rows_of(const std::filesystem::path& run) {
  std::ifstream in(run / "metrics.jsonl");
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

}  // namespace

TEST_CASE("a folder's weights are given one by one to a model without bytes", "[recipe][sft]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  const auto first = toy_recipe(dir.path())->model();
  modules::save_model(dir / "model", *first);
  const Json from = {{"model", {{"path", (dir / "model").string()}}}};
  const auto recipe = toy_recipe(dir.path(), from);
  const auto model = recipe->model_without_weights();
  REQUIRE(model != nullptr);
  CHECK(recipe->model() == model);
  std::size_t given = 0;
  const auto wanted = first->named_parameters();
  recipe->read_weights([&](const std::string& name, const Tensor& whole) {
    INFO(name);
    CHECK(modules::is_hollow(model->named_parameters()[name]));
    CHECK(torch::equal(whole, wanted[name]));
    ++given;
  });
  CHECK(given == modules::base_tensors(*first).size());
  // Fresh weights, and adapters that need the weights, are built whole.
  CHECK(toy_recipe(dir.path())->model_without_weights() == nullptr);
  Json dora = from;
  dora["lora"] = {{"use_dora", true}};
  CHECK(toy_recipe(dir.path(), dora)->model_without_weights() == nullptr);
}

TEST_CASE("conversations packed together are learned as if each stood alone", "[recipe][sft]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  auto recipe = toy_recipe(dir.path());
  const auto data = recipe->train_data();
  REQUIRE(data->size() == 6);
  std::vector<Batch> alone;
  for (int64_t i = 0; i < 6; ++i) alone.push_back(batch_of(*data, {i}));
  const TensorMap want = gradients(*recipe, alone);
  auto packed = toy_recipe(
      dir.path(),
      {{"data",
        {{"files", {(dir / "train.jsonl").string()}}, {"max_length", 24}, {"pack_length", 40}}}});
  const auto packs = packed->train_data();
  CHECK(packs->size() < 4);
  std::vector<int64_t> all(packs->size());
  std::iota(all.begin(), all.end(), 0);
  for (const TensorMap& got : {gradients(*recipe, {batch_of(*data, {3, 0, 5, 1, 4, 2})}),
                               gradients(*packed, {batch_of(*packs, all)})}) {
    REQUIRE(got.size() == want.size());
    Tensor whole = torch::zeros({});
    for (const auto& [name, grad] : want) whole = whole + grad.square().sum();
    for (const auto& [name, grad] : want) {
      INFO(name);
      const double scale = std::max(grad.norm().item<double>(), 1e-3 * whole.sqrt().item<double>());
      CHECK((got.at(name) - grad).norm().item<double>() / scale < 1e-5);
    }
  }
}

TEST_CASE("only the assistant's tokens are learned, each from the one before", "[recipe][sft]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  auto recipe = toy_recipe(dir.path());
  const Batch batch = batch_of(*recipe->train_data(), {0, 1});
  CHECK(*recipe->loss_weight(batch) == 8);  // two answers of three letters, and their ends
  auto& model = dynamic_cast<modules::LanguageModel&>(*recipe->model());
  const PackedConversations packed = unpack_batch(model, batch);
  REQUIRE(packed.sequences.size() == 2);
  CHECK(packed.sequences[1].image_grid_thw.size(0) == 1);
  // 9 a b c 10 9 x y z 10: the begin of the second turn is followed by x.
  const Tensor first = packed.targets.narrow(0, 0, 10);
  const int64_t no = modules::kIgnoreToken;
  CHECK(torch::equal(first, ids({no, no, no, no, no, 34, 35, 36, 10, no})));
}

TEST_CASE("parts of a model are frozen or adapted as set", "[recipe][sft]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  using Parts = std::set<std::string>;
  CHECK(trained_parts(*toy_recipe(dir.path())) == Parts{"vision", "merger", "language_model"});
  CHECK(trained_parts(*toy_recipe(dir.path(), {{"freeze", {"vision"}}})) ==
        Parts{"merger", "language_model"});
  auto lora =
      toy_recipe(dir.path(), {{"lora", {{"rank", 8}, {"alpha", 32}}}, {"freeze", {"merger"}}});
  CHECK(trained_parts(*lora) == Parts{"vision", "language_model"});
  std::set<std::string> adapted;
  for (const auto& layer : modules::lora_layers(*lora->model())) adapted.insert(layer.name);
  CHECK(adapted.count("model.language_model.layers.2.mlp.down_proj") == 1);
  CHECK(adapted.count("model.visual.blocks.0.attn.qkv") == 1);
  CHECK(adapted.count("model.visual.merger.linear_fc1") == 0);
  CHECK(adapted.count("lm_head") == 0);
  CHECK_THAT(error_of([&] {
               toy_recipe(dir.path(), {{"freeze", {"visual"}}});
             }),
             Contains("toy.json: recipe.freeze") && Contains("got visual"));
}

TEST_CASE("a small set of conversations is learned", "[recipe][sft]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  const Json validation = {{"validation_data", {{"files", {(dir / "train.jsonl").string()}}}},
                           {"exact_match_tokens", 12}};
  const Json trainer = {
      {"steps", 60},
      {"micro_batch_size", 6},
      {"optimizer", {{"lr", 1e-2}, {"weight_decay", 0}, {"lr_scale", {{"model.visual.", 0.1}}}}}};
  CHECK(train(dir, "full", trainer, validation).finished);
  const auto rows = rows_of(dir / "full");
  CHECK(rows.back()["val_token_accuracy"] > 0.95);
  CHECK(rows.back()["val_exact_match"] > 0.8);
  CHECK(rows.back()["val_loss"] < 0.3 * rows.front()["loss"].get<double>());
  CHECK(std::filesystem::exists(dir / "full/checkpoints/step-00000060/model/model.safetensors"));

  Json lora = validation;
  lora["lora"] = {{"rank", 8}, {"alpha", 32}};
  Json adapters = trainer;
  adapters["optimizer"] = {{"lr", 1e-2}};
  CHECK(train(dir, "lora", adapters, lora).finished);
  const auto adapted = rows_of(dir / "lora");
  // Embeddings and head are frozen noise: an adapter can only do so much with them.
  CHECK(adapted.back()["val_loss"] < 0.95 * adapted.front()["loss"].get<double>());
  CHECK(
      std::filesystem::exists(dir / "lora/checkpoints/step-00000060/adapter/adapter_config.json"));
}

TEST_CASE("a token weighs the same in any micro-batch", "[recipe][sft]") {
  const TempFolder dir;
  write_toy_data(dir.path());
  const Json steps = {{"steps", 3}};
  Json one = steps, many = steps;
  one["micro_batch_size"] = 6;
  many["gradient_accumulation"] = 6;
  train(dir, "one", one);
  train(dir, "many", many);
  const auto a = rows_of(dir / "one"), b = rows_of(dir / "many");
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(a[i]["loss"].get<double>() == Approx(b[i]["loss"].get<double>()).epsilon(1e-5));
    CHECK(a[i]["grad_norm"].get<double>() == Approx(b[i]["grad_norm"].get<double>()).epsilon(1e-3));
  }
}

}  // namespace cosmos::trainer
