#pragma once

// Files of torch.save and torch.jit.save in memory; see weight_source.h for files on disk.

#include "modules/hub/mapped_file.h"
#include "modules/hub/weight_source.h"

namespace cosmos::modules {

/// Whether `bytes` begin as torch.save's files do.
bool is_pytorch_file(const FileBytes& bytes);

/// The name of a tensor that a file holds alone, in no container.
inline constexpr const char* kOnlyTensor = "tensor";

/// As read_pytorch_file(); `where` names the bytes in errors.
WeightSource read_pytorch_bytes(FileBytes bytes, const std::string& where);

/// Writes {name: tensor} as torch.save does, one tensor in memory at a time: torch.load and
/// NVIDIA's loaders read it. The order of the dict is that of `names`.
void save_pytorch_file(const std::filesystem::path& path, const LazyTensors& tensors);

}  // namespace cosmos::modules
