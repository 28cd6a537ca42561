#pragma once

// An adapter file, whatever its spelling, before it meets a model.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/tensor.h"
#include "modules/hub/json_file.h"
#include "modules/lora/config.h"

namespace cosmos::modules {

struct AdapterLayer {
  Tensor A, B, magnitude;       ///< magnitude only with DoRA
  std::optional<double> alpha;  ///< when the file has one for each layer
};

/// What is told of a stack's adapter before the file is read.
struct StackShape {
  std::string name;            ///< path of the parameter
  std::vector<int64_t> shape;  ///< [E, out, in]
};
/// By module path, in registration order.
using StackShapes = std::map<std::string, std::vector<StackShape>>;

struct AdapterFile {
  LoraConfig config = {};
  std::map<std::string, AdapterLayer> layers = {};  ///< by module path
  std::map<std::string, AdapterLayer> stacks = {};  ///< by path of the parameter
  std::string where;                                ///< for messages
};

/// `stacks`: those of the model that it is for.
AdapterFile read_adapter_file(const std::filesystem::path& path, const StackShapes& stacks);

/// PEFT's LoraConfig as JSON <-> ours. Reading throws Error on settings that are not supported.
LoraConfig lora_config_from_peft(const Json& json, const std::string& where);
Json lora_config_to_peft(const LoraConfig& config);

}  // namespace cosmos::modules
