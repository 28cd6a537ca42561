#pragma once

// The weights of a Hugging Face folder, whether one file or shards with an index.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"

namespace cosmos::modules {

/// Names under which save_pretrained writes weights: diffusers, then transformers.
inline constexpr const char* kDiffusersWeights = "diffusion_pytorch_model";
inline constexpr const char* kTransformersWeights = "model";

/// Opens `dir`/NAME.safetensors or `dir`/NAME.safetensors.index.json, NAME being one of the above.
/// Files are mapped, nothing is read before get(). An index must name plain files that lie in the
/// folder (or, through a link, in the blobs folder of the same Hugging Face cache), list every
/// tensor of its shards and no other.
class WeightFolder {
 public:
  /// Throws Error when there are no weights, a shard is missing, or a file is not well formed.
  explicit WeightFolder(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  /// kDiffusersWeights or kTransformersWeights.
  const std::string& base_name() const { return base_name_; }
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return owner_.count(name) > 0; }
  /// Throws Error when there is no such tensor.
  const TensorInfo& info(const std::string& name) const;
  /// Zero-copy CPU tensor.
  Tensor get(const std::string& name) const;
  TensorMap tensors() const;
  /// Whether this CPU tensor's bytes are those of a mapped file.
  bool holds(const Tensor& tensor) const;

 private:
  const SafetensorsFile& file_of(const std::string& name) const;
  void open_index(const std::filesystem::path& index);

  std::filesystem::path dir_;
  std::string base_name_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t> owner_;  ///< tensor name -> position in files_
};

/// One file of a folder of weights, before it is written.
struct WeightFile {
  std::string name;
  std::map<std::string, TensorInfo> infos;
};

/// The files over which save_weights spreads tensors of these dtypes and shapes.
std::vector<WeightFile> place_weights(const std::string& base_name,
                                      const std::map<std::string, TensorInfo>& infos,
                                      int64_t max_shard_bytes = 10'000'000'000);
/// BASE.safetensors.index.json of several files.
Json weight_index(const std::vector<WeightFile>& files);

/// Writes `tensors` into `dir` as save_pretrained does: BASE.safetensors, or, beyond
/// `max_shard_bytes`, BASE-00001-of-00003.safetensors ... with BASE.safetensors.index.json. Files
/// are written atomically, the index last; shards of an earlier save that the new one does not use
/// are removed at the end.
void save_weights(const std::filesystem::path& dir, const std::string& base_name,
                  const TensorMap& tensors, int64_t max_shard_bytes = 10'000'000'000,
                  const Metadata& metadata = {});
/// The same of tensors that are read one after another.
void save_weights(const std::filesystem::path& dir, const std::string& base_name,
                  const LazyTensors& tensors, int64_t max_shard_bytes = 10'000'000'000,
                  const Metadata& metadata = {});

}  // namespace cosmos::modules
