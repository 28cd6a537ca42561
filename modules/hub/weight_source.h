#pragma once

// Weights of any file or folder that this suite reads, by name, each read when asked for.

#include <filesystem>
#include <map>
#include <string>

#include "modules/hub/lazy_tensor.h"

namespace cosmos::modules {

struct WeightSource {
  std::string format;  ///< "PyTorch file", "TorchScript archive", ...: for people
  LazyTensors tensors;
  /// What else the file holds, by name: "iteration" -> "the integer 7".
  std::map<std::string, std::string> others = {};
};

/// Opens by content: a .pt/.pth/.jit file of any generation, a .safetensors file, a folder of
/// torch.distributed.checkpoint, or a folder of (sharded) safetensors. Throws Error on any other,
/// and on files that are not well formed; all are untrusted.
WeightSource open_weights(const std::filesystem::path& path);

/// A file of torch.save (zip or the older stream) or torch.jit.save. Containers become dotted
/// names: {"model": {"w": ...}, "list": [...]} -> "model.w", "list.0". TorchScript: the attributes
/// of its modules; its code is not looked at. Tensors share the mapped file.
WeightSource read_pytorch_file(const std::filesystem::path& path);

/// A folder of torch.distributed.checkpoint: `.metadata` and `__{rank}_{n}.distcp` files. Tensors
/// of one chunk share the mapped file, others are assembled when read.
WeightSource read_dcp_folder(const std::filesystem::path& dir);

}  // namespace cosmos::modules
