#pragma once

// Tensors that a checkpoint keeps in rectangular pieces.

#include <string>
#include <vector>

#include "modules/hub/weight_source.h"

namespace cosmos::modules {

struct TensorChunk {
  std::vector<int64_t> offset;  ///< of its first element in the whole
  LazyTensor part;
};

/// The whole of `shape`; one chunk that covers it stays what it is, others are copied together when
/// read. Throws Error, `where` first, unless the chunks cover every element exactly once.
LazyTensor assemble(torch::Dtype dtype, std::vector<int64_t> shape, std::vector<TensorChunk> chunks,
                    const std::string& where);

}  // namespace cosmos::modules
