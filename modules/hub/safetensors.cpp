#include "modules/hub/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modules/core/fields.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"

namespace cosmos::modules {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation

// The bytes of a file, unmapped when released.
std::shared_ptr<char> map_file(const std::filesystem::path& path, uint64_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  require(fd >= 0, path.string(), ": cannot open: ", std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular || status.st_size < static_cast<off_t>(kLengthBytes)) {
    ::close(fd);
    require(regular, path.string(), ": expected a regular file");
    fail(path.string(), ": ", status.st_size, " bytes are too few for a safetensors file");
  }
  size = static_cast<uint64_t>(status.st_size);
  // Private and writable: in-place operations on a loaded tensor work and never reach the file.
  // NORESERVE: a file larger than memory plus swap must still map.
  void* bytes = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
  const int code = errno;
  ::close(fd);
  require(bytes != MAP_FAILED, path.string(), ": cannot map: ", std::strerror(code));
  return {static_cast<char*>(bytes), [size](char* p) { ::munmap(p, size); }};
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  uint64_t size = 0;
  const std::shared_ptr<char> bytes = map_file(path, size);
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
  metadata.emplace("format", "pt");
  // Widest elements first keeps every tensor aligned; the reference writer orders the same way.
  std::vector<std::pair<std::string, Tensor>> order(tensors.begin(), tensors.end());
  for (const auto& [name, tensor] : order) {
    require(tensor.defined(), path.string(), ": ", printable(name), ": tensor is undefined");
    require(name != "__metadata__", path.string(), ": __metadata__ cannot be a tensor's name");
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });

  std::string header;
  uint64_t position = 0;
  try {
    header = "{\"__metadata__\":" + Json(metadata).dump();
    for (const auto& [name, tensor] : order) {
      const uint64_t end = position + tensor.numel() * tensor.element_size();
      const Json info = {{"dtype", safetensors_dtype(tensor.scalar_type())},
                         {"shape", tensor.sizes().vec()},
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
    const Tensor plain = tensor.detach().to(torch::kCPU).contiguous();  // one copy at a time
    file.write(plain.data_ptr(), plain.numel() * plain.element_size());
  }
  file.commit();
}

}  // namespace cosmos::modules
