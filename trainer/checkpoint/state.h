#pragma once

// Weights, optimiser and averages on disk:
//   model/                  HF folder of the model (config.json + weights), when all of it is
//   trainable.safetensors   the trained parameters alone, when part of the model is frozen
//   adapter/                what the recipe exports of an adapter, beside trainable.safetensors
//   ema/ | ema.safetensors  averages, float32, in the layout of the weights
//   optimizer.safetensors   AdamW::state(); "master.NAME" where a shard is wider than its weight
//
// Files hold whole tensors whatever the number of ranks, so that any other number can go on.

#include <filesystem>

#include "trainer/core/recipe.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/ema.h"
#include "trainer/parallel/fully_shard.h"

namespace cosmos::trainer {

struct TrainState {
  modules::Model& model;
  Recipe& recipe;
  AdamW& optimizer;
  Ema* ema;             ///< null: none
  FullyShard* sharded;  ///< null: this process holds everything
};

/// The optimiser's and the averages' tensors, whole. Every rank calls it at the same time.
struct WholeTensors {
  TensorMap optimizer, averages;
};
WholeTensors gather_tensors(const TrainState& state);

/// Writes the state; one rank does. A sharded model must be whole (FullyShard::Whole).
void save_state(const std::filesystem::path& dir, const TrainState& state,
                const WholeTensors& tensors);

/// Every rank calls it, and reads its rows of each file and no others. Throws Error, before it
/// changes anything in the tensors concerned, when names or shapes differ.
void load_state(const std::filesystem::path& dir, const TrainState& state);

}  // namespace cosmos::trainer
