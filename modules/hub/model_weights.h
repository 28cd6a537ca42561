#pragma once

// Weights in and out of a Model, strictly: every key of the file has a place and every place a key.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/model.h"

namespace cosmos::modules {

/// A parameter or buffer of the base model. A tied tensor is one entry with several names.
struct BaseTensor {
  std::vector<std::string> names;  ///< as registered
  std::vector<std::string> keys;   ///< as an HF file spells them (Model::file_key)
  Tensor tensor;
};

/// Parameters, then buffers, in registration order. What adapters on Linears brought along is not
/// part of the base. A tensor whose file_key is "" is not kept in files and left out.
std::vector<BaseTensor> base_tensors(const Model& model);

/// Takes a tensor of a file into its place in the model.
using TakeTensor = std::function<void(const BaseTensor& place, const Tensor& tensor)>;

/// Copies `tensors` into the model, which keeps its dtypes and devices. `where` names the source in
/// messages. When anything does not fit, throws one Error that lists missing keys, unexpected keys
/// and shapes that differ, and the model is unchanged. `take` in place of a copy: for a model that
/// holds only a part of each tensor.
void load_weights(Model& model, const TensorMap& tensors, const std::string& where,
                  const TakeTensor& take = {});

/// Gives the weights of a model's folder one after another, floating ones in float32, as
/// load_model() has them by default.
void read_folder(Model& model, const std::filesystem::path& dir, const TakeTensor& take);

/// What a tensor registered as `name` is in a model of `dtype`: floating ones have it, except where
/// keeps_float32() names them.
torch::Dtype dtype_in(const Model& model, const std::string& name, const Tensor& tensor,
                      torch::Dtype dtype);

/// Converts parameters and buffers in place; floating ones only, and those that keeps_float32()
/// names stay float32; hollow ones stay hollow. Optimisers that hold the parameters go on holding
/// them.
void cast_model(Model& model, torch::Dtype dtype, torch::Device device = torch::kCPU);

/// float32, bfloat16, float16, float64: as config.json and command lines spell them. Throws Error
/// on any other.
torch::Dtype parse_dtype(const std::string& name);
std::string dtype_name(torch::Dtype dtype);

struct SaveOptions {
  std::optional<torch::Dtype> dtype =
      std::nullopt;                          ///< of floating weights in the file; none: as they are
  int64_t max_shard_bytes = 10'000'000'000;  ///< as save_pretrained's default, 10GB
  bool fp8 = false;  ///< products of a language model as modules/hub/fp8_weights.h keeps them
};

/// The base weights by file key, as save_model writes them.
TensorMap file_tensors(const Model& model, std::optional<torch::Dtype> dtype = std::nullopt);

/// config.json as save_model writes it, and the base name of the weights beside it.
Json saved_config(const Model& model, std::optional<torch::Dtype> dtype = std::nullopt);
std::string weights_base_name(const Model& model);

/// Writes config.json and weights as save_pretrained does, key for key: diffusers' file names for a
/// config with `_class_name`, transformers' otherwise. `_name_or_path` is dropped, it names a
/// machine's folder. The config comes last, so that a folder with one is complete. An attached
/// adapter is not part of it: merge it first, or save it on its own.
void save_model(const std::filesystem::path& dir, const Model& model,
                const SaveOptions& options = {});

}  // namespace cosmos::modules
