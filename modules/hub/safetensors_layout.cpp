// Where each tensor's bytes go, decided before there are any.

#include <algorithm>
#include <c10/core/alignment.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"
#include "modules/hub/safetensors_format.h"

namespace cosmos::modules {
namespace {

using Entry = std::pair<std::string, TensorInfo>;

// Where allocations begin: a tensor that begins there too can be used in place (mapped_weights.h).
constexpr uint64_t kAlignment = c10::gAlignment;

uint64_t bytes_of(const TensorInfo& info) {
  uint64_t bytes = c10::elementSize(info.dtype);
  for (const int64_t size : info.shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

// Tensors of whole kAlignment first, so that none of them is shifted by a small one; then widest
// elements first, as the reference writer has them, which keeps every tensor aligned to its own.
std::vector<Entry> in_file_order(const std::map<std::string, TensorInfo>& infos) {
  std::vector<Entry> order(infos.begin(), infos.end());
  const auto key = [](const TensorInfo& info) {
    return std::pair(bytes_of(info) % kAlignment == 0, c10::elementSize(info.dtype));
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Entry& a, const Entry& b) { return key(a.second) > key(b.second); });
  return order;
}

std::string describe_entry(const Entry& entry) {
  const TensorInfo& info = entry.second;
  const Json json = {{"dtype", safetensors_dtype(info.dtype)},
                     {"shape", info.shape},
                     {"data_offsets", {info.begin, info.end}}};
  return "," + Json(entry.first).dump() + ":" + json.dump();
}

}  // namespace

TensorInfo tensor_info(const Tensor& tensor) {
  return {.dtype = tensor.scalar_type(), .shape = tensor.sizes().vec()};
}

TensorInfo tensor_info(const LazyTensor& tensor) {
  return {.dtype = tensor.dtype, .shape = tensor.shape};
}

SafetensorsLayout lay_out_safetensors(const std::map<std::string, TensorInfo>& infos,
                                      Metadata metadata, const std::string& where) {
  require(infos.count("__metadata__") == 0, where, ": __metadata__ cannot be a tensor's name");
  metadata.emplace("format", "pt");
  SafetensorsLayout layout;
  uint64_t position = 0;
  std::string header;
  try {
    header = "{\"__metadata__\":" + Json(metadata).dump();
    for (Entry entry : in_file_order(infos)) {
      entry.second.begin = position;
      entry.second.end = position += bytes_of(entry.second);
      header += describe_entry(entry);
      layout.infos.insert(std::move(entry));
    }
  } catch (const Json::exception& error) {
    fail(where, ": a name or metadata is not UTF-8: ", printable(error.what()));
  }
  header += "}";
  const uint64_t beyond = (kLengthBytes + header.size()) % kAlignment;
  header.append((kAlignment - beyond) % kAlignment, ' ');
  require(header.size() <= kMaxHeaderBytes, where, ": header of ", header.size(),
          " bytes is larger than loaders accept; write fewer tensors a file");
  const uint64_t length = header.size();
  layout.head.assign(reinterpret_cast<const char*>(&length), kLengthBytes);
  layout.head += header;
  layout.bytes = layout.head.size() + position;
  return layout;
}

}  // namespace cosmos::modules
