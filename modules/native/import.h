#pragma once

// Checkpoints in NVIDIA's own spelling -> the Hugging Face classes, name by name, nothing loaded.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/hub/weight_source.h"

namespace cosmos::modules {

/// One component folder to be.
struct NativeComponent {
  std::string name;     ///< folder in a pipeline: "transformer", "controlnet", "vae"
  Json config;          ///< of config.json, with `_class_name`
  LazyTensors tensors;  ///< by Hugging Face name
};

/// A key with no counterpart on the other side, and why.
struct KeyNote {
  std::string key, reason;
};

struct NativeImport {
  std::string family;  ///< "Predict1 transformer", "Wan VAE": for people
  std::vector<NativeComponent> components;
  std::vector<KeyNote> dropped;    ///< of the file, in the file's spelling
  std::vector<KeyNote> created;    ///< of the components, COMPONENT/KEY
  std::vector<std::string> notes;  ///< what the weights did not say and was assumed
  bool one_step = false;           ///< Transfer1's distilled network: clean latents in one call
};

struct ImportOptions {
  bool ema = false;              ///< of a file with both, net_ema.* in place of net.*
  Json config = Json::object();  ///< keys of config.json that override what was sniffed
};

/// Opens a file or folder as open_weights() does; a folder of NVIDIA's tokenizers (encoder.jit and
/// decoder.jit, or autoencoder.jit; mean_std.pt beside them) is one source, and its statistics
/// come as "mean_std.0", "mean_std.1".
WeightSource open_native(const std::filesystem::path& path);

/// Recognises the model by its keys and maps every one. Wrappers ("model.", "module.",
/// "state_dict.", "net.", "_checkpoint_wrapped_module.", "_orig_mod.") are looked through. Each
/// component's keys and shapes are checked against its class. Throws Error naming the keys that are
/// missing, unexpected or of another shape; `where` names the file.
NativeImport import_native(const WeightSource& source, const std::string& where,
                           const ImportOptions& options = {});

/// Floating weights as `dtype` when read; those that the class keeps in float32 become float32.
void cast_component(NativeComponent& component, torch::Dtype dtype);

/// The line-by-line report: what became of every key that is not simply renamed.
std::string report_of(const NativeImport& import);

}  // namespace cosmos::modules
