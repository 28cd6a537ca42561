#pragma once

// What a generation will take, before it starts.

#include "modules/pipeline/world.h"

namespace cosmos::modules {

struct PeakMemory {
  int64_t weights = 0;      ///< bytes of all models of the pipeline; not of offloaded blocks
  int64_t activations = 0;  ///< the most bytes that a chunk takes beyond them
  int64_t total() const { return weights + activations; }
};

/// The most bytes that tensors take at once on the models' device while `request` is generated.
///
/// Nothing is assumed of the models: a chunk of the request's length, with its controls and its
/// text, is generated in two steps at two small picture sizes, and what that takes is carried on to
/// the request's size. A generation's memory is a constant and a part that grows with the area:
/// attention holds no scores. What happens in each block, and between blocks, is carried on for
/// itself, with the tokenizer's tiling and frames at once as they will be. Offloaded blocks count
/// as they come and go. Throws Error as generate_world does.
PeakMemory predict_peak(WorldPipeline& pipeline, const WorldRequest& request);

/// Bytes that the weights of a component's folder take in this dtype.
int64_t weights_in(const std::filesystem::path& component, torch::Dtype dtype);

}  // namespace cosmos::modules
