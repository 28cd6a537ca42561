#pragma once

// The few names every model file uses, and named dimensions.

#include <array>
#include <map>
#include <string>
// Not torch/torch.h: the optimisers, data loaders and JIT behind it double the cost of every file.
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>
#include <vector>

#include "ops/core/error.h"

namespace cosmos {

using torch::Tensor;
using Tensors = std::vector<Tensor>;
/// Tensors by name: a checkpoint, a batch, a forward call's arguments or results.
using TensorMap = std::map<std::string, Tensor>;

/// Sizes of a tensor of known rank, for structured bindings:
///   auto [B, C, T, H, W] = dims<5>(x);
/// Throws Error when the rank differs; `name` says which tensor in the message.
template <std::size_t Rank>
std::array<int64_t, Rank> dims(const Tensor& x, const char* name = "tensor") {
  require(x.dim() == static_cast<int64_t>(Rank), name, ": expected ", Rank,
          " dimensions, got shape ", x.sizes());
  std::array<int64_t, Rank> sizes{};
  std::copy(x.sizes().begin(), x.sizes().end(), sizes.begin());
  return sizes;
}

}  // namespace cosmos
