#include "modules/hub/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "modules/core/fields.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/mapped_file.h"

namespace cosmos::modules {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation

}  // namespace

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
  metadata.emplace("format", "pt");
  // Widest elements first keeps every tensor aligned; the reference writer orders the same way.
  std::vector<std::pair<std::string, LazyTensor>> order(tensors.begin(), tensors.end());
  require(tensors.count("__metadata__") == 0, path.string(),
          ": __metadata__ cannot be a tensor's name");
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return c10::elementSize(a.second.dtype) > c10::elementSize(b.second.dtype);
  });

  std::string header;
  uint64_t position = 0;
  try {
    header = "{\"__metadata__\":" + Json(metadata).dump();
    for (const auto& [name, tensor] : order) {
      const uint64_t end = position + static_cast<uint64_t>(tensor.bytes());
      const Json info = {{"dtype", safetensors_dtype(tensor.dtype)},
                         {"shape", tensor.shape},
                         {"data_offsets", {position, end}}};
      header += "," + Json(name).dump() + ":" + info.dump();
      position = end;
    }
  } catch (const Json::exception& error) {
    fail(path.string(), ": a name or metadata is not UTF-8: ", printable(error.what()));
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  require(header.size() <= kMaxHeaderBytes, path.string(), ": header of ", header.size(),
          " bytes is larger than loaders accept; write fewer tensors a file");

  AtomicFile file(path);
  const uint64_t header_bytes = header.size();
  file.reserve(kLengthBytes + header_bytes + position);
  file.write(&header_bytes, kLengthBytes);
  file.write(header);
  for (const auto& [name, tensor] : order) {
    const Tensor plain = tensor.read().detach().to(torch::kCPU).contiguous();  // one at a time
    require(plain.sizes() == tensor.shape && plain.scalar_type() == tensor.dtype, path.string(),
            ": ", printable(name), ": was read as another shape or dtype than announced");
    file.write(plain.data_ptr(), plain.nbytes());
  }
  file.commit();
}

}  // namespace cosmos::modules
