#pragma once

// Weights, optimiser and averages on disk:
//   model/                  HF folder of the model (config.json + weights), when all of it is
//   trained trainable.safetensors   the trained parameters alone, when part of the model is frozen
//   adapter/                what the recipe exports of an adapter, beside trainable.safetensors
//   ema/ | ema.safetensors  averages, float32, in the layout of the weights
//   optimizer.safetensors   AdamW::state()

#include <filesystem>

#include "trainer/core/recipe.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/ema.h"

namespace cosmos::trainer {

struct TrainState {
  modules::Model& model;
  Recipe& recipe;
  AdamW& optimizer;
  Ema* ema;  ///< null: none
};

void save_state(const std::filesystem::path& dir, const TrainState& state);

/// Throws Error, before it changes anything in the tensors concerned, when names or shapes differ.
void load_state(const std::filesystem::path& dir, const TrainState& state);

}  // namespace cosmos::trainer
