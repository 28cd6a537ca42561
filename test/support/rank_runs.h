#pragma once

// Runs of a tiny transformer on several ranks, real processes over Gloo, and what they left: what
// the tests of parallel layouts hold against one process.

#include <catch2/catch.hpp>
#include <fstream>

#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"
#include "modules/hub/weight_folder.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"

namespace cosmos::test {

/// Sizes that 2, 3 and 4 ranks do not divide; global batches of four clips.
inline Json config_json(const Json& trainer, const Json& recipe) {
  Json config = {{"recipe",
                  {{"type", "predict"},
                   {"model",
                    {{"in_channels", 5},
                     {"out_channels", 4},
                     {"num_attention_heads", 2},
                     {"attention_head_dim", 12},
                     {"num_layers", 2},
                     {"mlp_ratio", 2.0},
                     {"text_embed_dim", 8},
                     {"adaln_lora_dim", 5},
                     {"max_size", {8, 16, 16}},
                     {"extra_pos_embed_type", nullptr}}},
                   {"data", {{"type", "latent-clips"}}},
                   {"latent_cache", "none"},
                   {"condition_frames", {0.5, 0.5}}}},
                 {"trainer",
                  {{"steps", 6},
                   {"gradient_accumulation", 4},
                   {"precision", "fp64"},
                   {"threads", 1},
                   {"clip_norm", 0.5},
                   {"optimizer", {{"lr", 3e-3}}},
                   {"ema", {{"kind", "constant"}, {"decay", 0.9}}}}}};
  config["trainer"].update(trainer, /*merge_objects=*/true);
  config["recipe"].update(recipe, /*merge_objects=*/true);
  return config;
}

/// Every row of metrics.jsonl.
inline std::vector<Json> metrics_of(const std::filesystem::path& dir) {
  std::vector<Json> rows;
  std::ifstream metrics(dir / "metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) rows.push_back(Json::parse(line));
  return rows;
}

struct Outcome {
  std::vector<double> losses, norms;
  TensorMap weights, averages, optimizer;
};

class Runs {
 public:
  Outcome run(const std::string& name, int ranks, const Json& trainer,
              const Json& recipe = Json::object(), const std::string& before = "") {
    const auto answer = start(name, ranks, trainer, recipe, before);
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    return read(dir(name));
  }
  /// `before`: shell commands.
  Answer start(const std::string& name, int ranks, const Json& trainer, const Json& recipe,
               const std::string& before = "") {
    const std::filesystem::path file = folder_ / (name + ".json");
    modules::write_json(file, config_json(trainer, recipe));
    return run_program(
        "rank_worker",
        std::to_string(ranks) + " " + file.string() + " run.dir=" + dir(name).string(), before);
  }
  std::filesystem::path dir(const std::string& name) const { return folder_ / name; }

  static Outcome read(const std::filesystem::path& dir, int step = 6) {
    Outcome outcome;
    for (const Json& row : metrics_of(dir)) {
      outcome.losses.push_back(row.at("loss"));
      outcome.norms.push_back(row.at("grad_norm"));
    }
    const std::string digits = std::to_string(step);
    const auto last =
        dir / "checkpoints" / ("step-" + std::string(8 - digits.size(), '0') + digits);
    if (std::filesystem::exists(last / "model")) {
      outcome.weights = modules::WeightFolder(last / "model").tensors();
      outcome.averages = modules::WeightFolder(last / "ema").tensors();
    } else {  // part of the model is frozen
      outcome.weights = modules::load_safetensors(last / "trainable.safetensors");
      outcome.averages = modules::load_safetensors(last / "ema.safetensors");
    }
    outcome.optimizer = modules::load_safetensors(last / "optimizer.safetensors");
    return outcome;
  }

 private:
  TempFolder folder_;
};

inline double worst(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double found = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    found = std::max(found, std::abs(a[i] - b[i]) / std::abs(b[i]));
  return found;
}

inline double worst(const TensorMap& a, const TensorMap& b) {
  REQUIRE(a.size() == b.size());
  double found = 0;
  for (const auto& [name, tensor] : a) {
    INFO(name);
    REQUIRE(b.count(name) == 1);
    REQUIRE(tensor.sizes() == b.at(name).sizes());
    if (tensor.numel() > 0)
      found = std::max(
          found,
          (tensor.to(torch::kDouble) - b.at(name).to(torch::kDouble)).abs().max().item<double>());
  }
  return found;
}

inline void check_same(const Outcome& ours, const Outcome& one, double tolerance) {
  CHECK(worst(ours.losses, one.losses) < tolerance);
  CHECK(worst(ours.norms, one.norms) < tolerance);
  CHECK(worst(ours.weights, one.weights) < tolerance);
  CHECK(worst(ours.averages, one.averages) < tolerance);
  CHECK(worst(ours.optimizer, one.optimizer) < tolerance);
}

}  // namespace cosmos::test
