#pragma once

// Weights, optimiser and averages on disk:
//   model/                  HF folder of the model (config.json + weights), when all of it is
//   trainable.safetensors   the trained parameters alone, when part of the model is frozen
//   adapter/                what the recipe exports of an adapter, beside trainable.safetensors
//   ema/ | ema.safetensors  averages, float32, in the layout of the weights
//   fp8.safetensors         scales and histories of delayed scaling (modules/fp8)
//   optimizer.safetensors   AdamW::state(); "master.NAME" where a shard is wider than its weight
//
// Files hold whole tensors whatever the number of ranks, so that any other number can go on. All
// shapes are known beforehand: state_files() says where every byte goes, and each rank writes those
// that it holds (checkpoint/writer.h), each rank reads those that it wants.

#include <filesystem>
#include <map>
#include <string>

#include "modules/fp8/fp8.h"
#include "modules/hub/safetensors.h"
#include "trainer/core/recipe.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/ema.h"
#include "trainer/parallel/fully_shard.h"
#include "trainer/parallel/shard_layout.h"

namespace cosmos::trainer {

struct TrainState {
  modules::Model& model;
  Recipe& recipe;
  AdamW& optimizer;
  Ema* ema;                           ///< null: none
  FullyShard* sharded;                ///< null: this process holds everything
  modules::Fp8Layers* fp8 = nullptr;  ///< null: no 8-bit products
  int64_t rank = 0, ranks = 1;
};

/// What this rank holds of a tensor in a file.
struct Piece {
  modules::TensorInfo info;  ///< dtype and shape of the whole tensor in the file
  Region region;
  Tensor data;       ///< of that region; any dtype, any device
  bool mine = true;  ///< this rank writes it; otherwise another that holds the same does
};

/// A file of a checkpoint before it is written: tensors, or text.
struct StateFile {
  std::map<std::string, Piece> tensors = {};
  modules::Metadata metadata = {};
  std::string text = {};
  bool head_mine = true;  ///< this rank writes the header, or the text
};
/// By path in the checkpoint's folder.
using StateFiles = std::map<std::string, StateFile>;

/// The files of a checkpoint and this rank's pieces of them, which share the state's memory. Of
/// ranks that hold the same, one writes; which one goes round.
StateFiles state_files(const TrainState& state);

/// Every rank calls it, and reads its regions of each file and no others. Throws Error, before it
/// changes anything in the tensors concerned, when names or shapes differ.
void load_state(const std::filesystem::path& dir, const TrainState& state);

/// Whether checkpoints hold the model as a whole, not its trained part alone.
bool whole_model_trains(const modules::Model& model);

/// AdamW::state() of this rank, and the float32 shards of narrower weights as masters.
TensorMap optimizer_state(const TrainState& state);
/// "exp_avg.blocks.0.weight": what of which parameter. "step" has no rows to split.
std::pair<std::string, std::string> split_key(const std::string& key);

}  // namespace cosmos::trainer
