#pragma once

// What tensor parallelism of the DiT moves between ranks; the plan itself is
// CosmosTransformer3DModel::parallel_plan().

#include "modules/dit/config.h"

namespace cosmos::modules {

/// Elements of one sample that the tensor ranks' collectives are handed, whole buffers counted (an
/// all-reduce twice: as a reduce-scatter and an all-gather).
struct TensorTraffic {
  double block = 0;  ///< of a block's forward, and as much again in its backward
  double head = 0;   ///< of the head's, the same
};
/// `tokens` of one sample, after patching, on this rank before they are split further.
TensorTraffic tensor_traffic(const DitConfig& config, double tokens, bool sequence);

}  // namespace cosmos::modules
