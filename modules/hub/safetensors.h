#pragma once

// The safetensors format (https://github.com/huggingface/safetensors):
//   8 bytes   N, length of the header, little-endian
//   N bytes   JSON {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
//                   "__metadata__": {"key": "text"}}
//   the rest  tensors, C order, little-endian, back to back: no holes, no overlaps
//
// A file is untrusted input: everything is checked before the first tensor exists, and an error
// names file and tensor. (What no check can catch is another process truncating the file while it
// is mapped.)

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/hub/lazy_tensor.h"

namespace cosmos::modules {

struct TensorInfo {
  torch::Dtype dtype = torch::kFloat32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  ///< first byte, counted from the end of the header
  uint64_t end = 0;    ///< one past the last byte
};

using Metadata = std::map<std::string, std::string>;

/// A mapped file. Tensors share its memory (zero-copy) and keep the mapping alive after the
/// SafetensorsFile is gone. Writing into such a tensor changes private memory, never the file.
class SafetensorsFile {
 public:
  /// Maps and validates. Throws Error on anything that is not a well-formed file.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, TensorInfo>& infos() const { return infos_; }
  const Metadata& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return infos_.count(name) > 0; }

  /// CPU tensor of the file's dtype. Throws Error naming the nearest tensor when there is none.
  Tensor get(const std::string& name) const;
  TensorMap tensors() const;
  /// Whether this CPU tensor's bytes are this mapping's.
  bool holds(const Tensor& tensor) const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<const void> mapping_;  ///< first byte after the header; unmaps when released
  uint64_t data_bytes_ = 0;              ///< of the mapping
  std::map<std::string, TensorInfo> infos_;
  Metadata metadata_;
};

/// Every tensor of `path`, zero-copy.
TensorMap load_safetensors(const std::filesystem::path& path);

/// Writes one file atomically: temporary file, fsync, rename. `metadata` gets "format": "pt" when
/// it has no format, as every Python loader expects. Tensors may lie on any device in any layout.
void save_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                      Metadata metadata = {});
/// The same of tensors that are read one after another, each let go of once it is written.
void save_safetensors(const std::filesystem::path& path, const LazyTensors& tensors,
                      Metadata metadata = {});

/// A file before there are tensors: its first bytes, and where each tensor's go.
struct SafetensorsLayout {
  std::string head;                         ///< length and header
  std::map<std::string, TensorInfo> infos;  ///< begin and end counted from the end of the head
  uint64_t bytes = 0;                       ///< of the whole file
};

/// The layout of the file that save_safetensors writes of tensors with these dtypes and shapes
/// (begin and end of `infos` are not looked at). `where` names the file.
SafetensorsLayout lay_out_safetensors(const std::map<std::string, TensorInfo>& infos,
                                      Metadata metadata, const std::string& where);

/// Dtype and shape of a tensor that is not in a file yet.
TensorInfo tensor_info(const Tensor& tensor);
TensorInfo tensor_info(const LazyTensor& tensor);

/// Parses and checks the JSON header of a file whose tensors take `data_bytes`; `where` names the
/// file.
void parse_safetensors_header(std::string_view header, uint64_t data_bytes,
                              const std::string& where, std::map<std::string, TensorInfo>& infos,
                              Metadata& metadata);

/// "F32" for torch::kFloat32. Throws Error for a dtype without a name in the format.
std::string safetensors_dtype(torch::Dtype dtype);

}  // namespace cosmos::modules
