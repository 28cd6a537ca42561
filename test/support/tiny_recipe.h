#pragma once

// What the tests of world recipes share: a config around a tiny DiT on a dataset of the test's own,
// all of its samples as one batch, and a short training.

#include <memory>
#include <string>
#include <torch/optim/adamw.h>
#include <vector>

#include "test/support/tiny_dit.h"
#include "trainer/core/recipe.h"
#include "trainer/data/registry.h"

namespace cosmos::test {

/// Registers Data as `name`, and gives a recipe's config on it for latents of four channels, text
/// of width 8.
template <typename Data>
Json tiny_recipe_json(const std::string& name) {
  trainer::register_dataset(
      name, [](const Json&, const std::string&) { return std::make_shared<Data>(); });
  return {{"model", tiny_dit_json(2)},
          {"data", {{"type", name}}},
          {"validation_data", {{"type", name}}},
          {"latent_cache", "none"}};
}

inline trainer::Batch whole_batch(trainer::Dataset& data) {
  std::vector<trainer::Sample> samples;
  for (int64_t item = 0; item < data.size(); ++item) samples.push_back(data.get(item, 0, item));
  return trainer::collate(samples);
}

/// `steps` updates of the recipe's model on one batch.
inline void train_on(trainer::Recipe& recipe, modules::Model& model, const trainer::Batch& batch,
                     uint64_t steps) {
  torch::optim::AdamW optimizer(model.parameters(), torch::optim::AdamWOptions(5e-3));
  for (uint64_t step = 0; step < steps; ++step) {
    const trainer::Loss loss = recipe.loss(batch, {.seed = step});
    optimizer.zero_grad();
    loss.value.backward();
    optimizer.step();
  }
}

inline double validation_loss(trainer::Recipe& recipe, const trainer::Batch& batch) {
  const torch::NoGradGuard no_grad;
  return recipe.loss(batch, {.seed = 4, .training = false}).value.item<double>();
}

}  // namespace cosmos::test
