#include "modules/hub/safetensors.h"

#include <algorithm>
#include <cstring>

#include "modules/core/fields.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/mapped_file.h"
#include "modules/hub/safetensors_format.h"

namespace cosmos::modules {
SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const auto [bytes, size] = map_file(path, kLengthBytes, "safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.get(), kLengthBytes);
  const uint64_t limit = std::min(size - kLengthBytes, kMaxHeaderBytes);
  require(header_bytes <= limit, path.string(), ": header claims ", header_bytes, " bytes, only ",
          limit, " are possible (truncated, or not a safetensors file)");
  const uint64_t data_begin = kLengthBytes + header_bytes;
  parse_safetensors_header({bytes.get() + kLengthBytes, header_bytes}, size - data_begin,
                           path.string(), infos_, metadata_);
  mapping_ = std::shared_ptr<const void>(bytes, bytes.get() + data_begin);
  data_bytes_ = size - data_begin;
}

bool SafetensorsFile::holds(const Tensor& tensor) const {
  const auto first = reinterpret_cast<uintptr_t>(mapping_.get());
  const auto at = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return at >= first && at < first + data_bytes_;
}

Tensor SafetensorsFile::get(const std::string& name) const {
  const auto found = infos_.find(name);
  if (found == infos_.end()) {
    std::vector<std::string> names;
    for (const auto& [key, info] : infos_) names.push_back(key);
    const std::string near = nearest(name, names);
    fail(path_.string(), ": has no tensor ", printable(name),
         near.empty() ? "" : " (did you mean " + printable(near) + "?)");
  }
  const TensorInfo& info = found->second;
  if (info.begin == info.end) return torch::empty(info.shape, info.dtype);
  char* data = const_cast<char*>(static_cast<const char*>(mapping_.get())) + info.begin;
  // The format does not promise alignment, kernels do need it.
  const std::size_t alignment = std::min<std::size_t>(c10::elementSize(info.dtype), 8);
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    Tensor copy = torch::empty(info.shape, info.dtype);
    std::memcpy(copy.data_ptr(), data, info.end - info.begin);
    return copy;
  }
  return torch::from_blob(
      data, info.shape, [keep = mapping_](void*) {}, torch::TensorOptions(info.dtype));
}

TensorMap SafetensorsFile::tensors() const {
  TensorMap all;
  for (const auto& [name, info] : infos_) all[name] = get(name);
  return all;
}

TensorMap load_safetensors(const std::filesystem::path& path) {
  return SafetensorsFile(path).tensors();
}

void save_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                      Metadata metadata) {
  for (const auto& [name, tensor] : tensors)
    require(tensor.defined(), path.string(), ": ", printable(name), ": tensor is undefined");
  save_safetensors(path, lazy_tensors(tensors), std::move(metadata));
}

void save_safetensors(const std::filesystem::path& path, const LazyTensors& tensors,
                      Metadata metadata) {
  std::map<std::string, TensorInfo> infos;
  for (const auto& [name, tensor] : tensors) infos[name] = tensor_info(tensor);
  const SafetensorsLayout layout = lay_out_safetensors(infos, std::move(metadata), path.string());
  std::vector<std::pair<uint64_t, std::string>> order;
  for (const auto& [name, info] : layout.infos)
    if (info.begin < info.end) order.emplace_back(info.begin, name);
  std::sort(order.begin(), order.end());

  AtomicFile file(path);
  file.reserve(layout.bytes);
  file.write(layout.head);
  for (const auto& [begin, name] : order) {
    const LazyTensor& tensor = tensors.at(name);
    const Tensor plain = tensor.read().detach().to(torch::kCPU).contiguous();  // one at a time
    require(plain.sizes() == tensor.shape && plain.scalar_type() == tensor.dtype, path.string(),
            ": ", printable(name), ": was read as another shape or dtype than announced");
    file.write(plain.data_ptr(), plain.nbytes());
  }
  file.commit();
}

}  // namespace cosmos::modules
