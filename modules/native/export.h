#pragma once

// Hugging Face folders -> checkpoints that NVIDIA's own loaders read.

#include <filesystem>

#include "modules/native/import.h"

namespace cosmos::modules {

struct NativeExport {
  LazyTensors tensors;           ///< by native key, "net." in front of a transformer's
  std::vector<KeyNote> dropped;  ///< COMPONENT/KEY of the folder
  std::vector<KeyNote> created;  ///< in the file's spelling
};

/// `dir` is a component folder (config.json + weights) or a pipeline folder, of which transformer
/// and controlnet are taken: NVIDIA keeps both in one file. Nothing is loaded before it is read
/// tensor by tensor. Throws Error when a key has no native name, or when the control net's copies
/// of the base's modules differ from the base's, which one file cannot hold.
NativeExport export_native(const std::filesystem::path& dir);

std::string report_of(const NativeExport& exported);

}  // namespace cosmos::modules
