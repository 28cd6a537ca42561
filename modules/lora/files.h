#pragma once

// Adapters in the two formats that others load:
//   PEFT folder     adapter_config.json + adapter_model.safetensors, as peft 0.21 writes it;
//                   keys base_model.model.PATH.lora_A.weight, lora_B.weight, lora_magnitude_vector
//   diffusers file  pytorch_lora_weights.safetensors; keys COMPONENT.PATH.lora_A.weight ..., the
//   config
//                   as JSON under lora_adapter_metadata in the header

#include <filesystem>
#include <map>
#include <string>

#include "modules/hub/safetensors.h"
#include "modules/lora/lora.h"

namespace cosmos::modules {

struct AdapterFileOptions {
  std::string base_model;                 ///< name of the base on a hub, "" for none; never a path
  std::string component = "transformer";  ///< the pipeline's component (diffusers file only)
};

/// A file before it is written: tensors of a .safetensors file, or text.
struct FileContent {
  TensorMap tensors = {};
  Metadata metadata = {};
  std::string text = {};
};

/// What the two functions below write, by file name. The tensors are the adapter's own parameters.
std::map<std::string, FileContent> peft_adapter_files(const Model& model,
                                                      const AdapterFileOptions& options = {});
std::map<std::string, FileContent> diffusers_lora_files(const Model& model,
                                                        const AdapterFileOptions& options = {});

/// Writes the attached adapters; throws Error when they have no effect (require_effect).
void save_peft_adapter(const std::filesystem::path& dir, const Model& model,
                       const AdapterFileOptions& options = {});
void save_diffusers_lora(const std::filesystem::path& dir, const Model& model,
                         const AdapterFileOptions& options = {});

/// Reads a PEFT folder, a folder with a diffusers file, or a .safetensors file itself (names
/// lora_A/lora_B, lora.down/lora.up or lora_down/lora_up, with or without .alpha) and attaches it,
/// base frozen. Strict: every key of the file must find its Linear, every A its B, every shape must
/// fit, and settings that would change the result but are not supported are refused; then the model
/// is unchanged.
void load_adapter(Model& model, const std::filesystem::path& path);

}  // namespace cosmos::modules
