#pragma once

// Tables of rotary positions for the language model and the vision tower.

#include <utility>

#include "modules/core/tensor.h"
#include "modules/vlm/config.h"

namespace cosmos::modules {

/// cos and sin of the angles of a head's pairs, float32; pair i is (i, i + head / 2).
struct RopeTables {
  Tensor cos, sin;
};

/// position_ids: int64 [3, B, L], positions in time, height and width (all equal in text)
/// -> [B, L, head_dim / 2]
RopeTables text_rope(const RopeConfig& rope, int64_t head_dim, const Tensor& position_ids);

/// Half of the pairs turn with a patch's row, half with its column.  rows_columns: int64 [N, 2]
/// -> [N, head_dim / 2]
RopeTables vision_rope(double theta, int64_t head_dim, const Tensor& rows_columns);

}  // namespace cosmos::modules
