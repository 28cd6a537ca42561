#include "modules/hub/pytorch_archive.h"

#include <cstring>

#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

constexpr const char* kPickle = "data.pkl";

// Everything lies in one folder, which is named after the file that was once written.
std::string find_prefix(const ZipArchive& zip, const std::string& where) {
  std::string prefix;
  for (const auto& name : zip.names()) {
    const std::size_t slash = name.find('/');
    if (slash == std::string::npos || name.substr(slash + 1) != kPickle) continue;
    require(prefix.empty(), where, ": holds several data.pkl");
    prefix = name.substr(0, slash + 1);
  }
  require(!prefix.empty(), where, ": a zip archive without data.pkl, not a file of torch.save");
  return prefix;
}

}  // namespace

PytorchArchive::PytorchArchive(FileBytes bytes, const std::string& where)
    : where_(where), zip_(std::move(bytes), where), prefix_(find_prefix(zip_, where)) {
  torchscript_ = zip_.contains(prefix_ + "constants.pkl");
  if (zip_.contains(prefix_ + "byteorder"))
    require(zip_.read(prefix_ + "byteorder").view() == "little", where,
            ": was written on a big-endian machine; save it again on this one");
  const FileBytes pickle = zip_.read(prefix_ + kPickle);
  pickle_ = read_pickle(pickle.view(), where, {.torchscript = torchscript_});
  require(pickle_.bytes == pickle.size, where, ": bytes follow the end of the pickle");
}

FileBytes PytorchArchive::storage(const PickledStorage& storage) const {
  const std::string name = prefix_ + "data/" + storage.key;
  if (storage.elements == 0 && !zip_.contains(name)) return {};
  const FileBytes bytes = zip_.read(name);
  check_storage(bytes, storage, where_);
  return bytes;
}

void check_storage(const FileBytes& bytes, const PickledStorage& storage,
                   const std::string& where) {
  const uint64_t item = storage.dtype ? c10::elementSize(*storage.dtype) : 1;
  const uint64_t expected = static_cast<uint64_t>(storage.elements) * item;
  require(bytes.size == expected, where, ": storage ", printable(storage.key), " has ", bytes.size,
          " bytes, its pickle says ", expected);
}

Tensor view_of_storage(const FileBytes& bytes, const PickledTensor& view) {
  const std::size_t item = c10::elementSize(view.dtype);
  const torch::TensorOptions options(view.dtype);
  if (bytes.size == 0 || c10::multiply_integers(view.shape) == 0)
    return torch::empty(view.shape, options);
  FileBytes aligned = bytes;
  // Kernels need alignment; torch.save aligns to 64 bytes, older files do not.
  if (reinterpret_cast<uintptr_t>(bytes.data.get()) % std::min<std::size_t>(item, 8) != 0) {
    aligned.data = std::shared_ptr<char>(new char[bytes.size], std::default_delete<char[]>());
    std::memcpy(aligned.data.get(), bytes.data.get(), bytes.size);
  }
  char* first = aligned.data.get() + static_cast<std::size_t>(view.offset) * item;
  return torch::from_blob(
      first, view.shape, view.stride, [keep = aligned.data](void*) {}, options);
}

}  // namespace cosmos::modules
