#pragma once

// Models by the name that their config.json carries.
//
//   register_builtin_models();                      // modules/registry.h
//   auto model = load_model("Cosmos-Predict2.5-2B/transformer", {.dtype = torch::kBFloat16});

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "modules/core/model.h"

namespace cosmos::modules {

/// Builds a model with fresh weights. `where` names the config in error messages.
using ModelFactory =
    std::function<std::shared_ptr<Model>(const Json& config, const std::string& where)>;

/// Makes `name` (a `_class_name`, an entry of `architectures`, or a `model_type`) known; a second
/// registration replaces the first.
void register_model(const std::string& name, ModelFactory factory);

/// Builds the model that `config` names by `_class_name`, else the first of `architectures`, else
/// `model_type`. Throws Error naming the nearest known class when there is none of that name.
std::shared_ptr<Model> make_model(const Json& config, const std::string& where);

/// Whether make_model() knows the class that `config` names.
bool is_known_model(const Json& config);

struct LoadOptions {
  torch::Dtype dtype =
      torch::kFloat32;  ///< of floating weights, except where the class keeps float32
  torch::Device device = torch::kCPU;
  /// Weights stay in the folder's files, and each block's come in when it runs (block_offload.h).
  bool offload = false;
  /// Weights that the files have as the model wants them stay in the files' pages, for programs
  /// that only read them (mapped_weights.h).
  bool mapped = false;
};

/// config.json + weights of a component folder, strictly (see load_weights), in eval mode. The
/// weights are read once, straight into their final dtype.
std::shared_ptr<Model> load_model(const std::filesystem::path& dir,
                                  const LoadOptions& options = {});

}  // namespace cosmos::modules
