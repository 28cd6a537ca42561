#pragma once

// Where tensors wait that are not on the device: the machine's memory, or a file of a fast disk.

#include <filesystem>
#include <memory>
#include <string>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

class AwayMemory {
 public:
  virtual ~AwayMemory() = default;
  /// Contiguous memory that the CPU reads and writes; rubbish at first.
  virtual Tensor empty(at::IntArrayRef sizes, torch::Dtype dtype) = 0;
  Tensor zeros(at::IntArrayRef sizes, torch::Dtype dtype) { return empty(sizes, dtype).zero_(); }
};

/// `place` "host": memory, pinned for copies that a GPU makes by itself when `device` is one.
/// "disk": mapped files without a name in `dir` (made when it is missing), which are gone with the
/// process; their pages are the system's to write out, and pieces that are given back are used
/// again. A full disk is an Error when memory is asked for. Null for "none".
std::shared_ptr<AwayMemory> make_away_memory(const std::string& place,
                                             const std::filesystem::path& dir,
                                             torch::Device device);

}  // namespace cosmos::trainer
