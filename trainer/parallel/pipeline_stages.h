#pragma once

// Which of a model's blocks are on which stage of a pipeline.

#include <map>
#include <string>

#include "modules/core/model.h"

namespace cosmos::trainer {

class PipelineStages {
 public:
  /// One stage holds all.
  PipelineStages() = default;
  /// Cuts Model::block_order() into `ranks * chunks` runs: the numbered blocks evenly, what comes
  /// before them on the first stage, what comes after on the last. Throws Error when the model
  /// does not say its order, or that do not divide its blocks.
  PipelineStages(const modules::Model& model, int64_t ranks, int64_t chunks);

  int64_t stages() const { return stages_; }
  int64_t stage_of(const std::string& block) const;
  /// The pipeline's rank that holds the block.
  int64_t rank_of(const std::string& block) const { return stage_of(block) % ranks_; }

 private:
  int64_t ranks_ = 1, stages_ = 1;
  std::map<std::string, int64_t> stage_of_;
};

}  // namespace cosmos::trainer
