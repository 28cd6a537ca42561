#pragma once

// The seam between a model and whatever runs its blocks.
//
// A model walks its blocks through run_block(); by default that is a plain call. The trainer
// installs a BlockRunner to recompute activations, gather and free shards, place the block on a
// pipeline stage, or time it, without the model knowing. Stem and head are blocks too.

#include <functional>
#include <memory>
#include <string>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// What a block computes. Every tensor that may carry a gradient is among the inputs, none is
/// captured; captured constants (RoPE tables, masks) must not require grad.
using BlockFn = std::function<Tensors(const Tensors& inputs)>;

class BlockRunner {
 public:
  virtual ~BlockRunner() = default;
  /// Runs `fn(inputs)`, whose parameters are those of `block`. `name` is the block's path in the
  /// model ("transformer_blocks.3").
  virtual Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                      const BlockFn& fn) = 0;
};

}  // namespace cosmos::modules
