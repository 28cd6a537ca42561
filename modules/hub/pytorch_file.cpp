// Files of torch.save and torch.jit.save as named tensors.

#include "modules/hub/pytorch_file.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "modules/hub/atomic_file.h"
#include "modules/hub/pytorch_archive.h"
#include "modules/hub/weight_source.h"

namespace cosmos::modules {
namespace {

using Kind = PickleValue::Kind;

constexpr std::size_t kMaxNames = 1'000'000;

/// The bytes of a storage, checked to be all there.
using StorageBytes = std::function<FileBytes(const PickledStorage&)>;

class Flattener {
 public:
  Flattener(WeightSource& source, const std::string& where, StorageBytes bytes)
      : source_(source), where_(where), bytes_(std::move(bytes)) {}

  void visit(const PickleValue& value, const std::string& name) {
    require(++visited_ <= kMaxNames, where_, ": more than ", kMaxNames, " values by name");
    switch (value.kind) {
      case Kind::kTensor:
        return add(name, value.tensor);
      case Kind::kList:
      case Kind::kTuple:
        for (std::size_t i = 0; i < value.items.size(); ++i)
          visit(*value.items[i], join(name, std::to_string(i)));
        return;
      case Kind::kDict:
        for (std::size_t i = 0; i + 1 < value.items.size(); i += 2)
          visit(*value.items[i + 1], join(name, key_of(*value.items[i])));
        return;
      case Kind::kRecord:
        if (!value.items.empty() && value.items[0]->is(Kind::kDict))
          return visit(*value.items[0], name);
        [[fallthrough]];
      default:
        source_.others[name] = value.describe();
    }
  }

 private:
  static std::string join(const std::string& name, const std::string& key) {
    return name.empty() ? key : name + "." + key;
  }
  std::string key_of(const PickleValue& key) const {
    if (key.is(Kind::kInteger)) return std::to_string(key.integer);
    require(key.is(Kind::kText) && !key.text.empty(), where_, ": ", key.describe(),
            " as a key; weights have names");
    return key.text;
  }
  void add(const std::string& name, const std::shared_ptr<PickledTensor>& view) {
    const FileBytes storage = bytes_(view->storage);
    const LazyTensor tensor{view->dtype, view->shape,
                            [storage, view] { return view_of_storage(storage, *view); }};
    const bool added = source_.tensors.emplace(name.empty() ? kOnlyTensor : name, tensor).second;
    require(added, where_, ": ", printable(name), " appears twice");
  }

  WeightSource& source_;
  const std::string& where_;
  StorageBytes bytes_;
  std::size_t visited_ = 0;
};

// torch.save before 1.6: three small pickles, the object, a list of storage keys, and then each
// storage as its number of elements (8 bytes) and its bytes.
constexpr std::string_view kLegacyMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                                        15);

struct LegacyFile {
  Pickle object;
  std::map<std::string, FileBytes> storages;
};

class LegacyReader {
 public:
  LegacyReader(FileBytes bytes, const std::string& where)
      : bytes_(std::move(bytes)), where_(where), position_(kLegacyMagic.size()) {}

  LegacyFile run() {
    const Pickle version = pickle();
    require(version.root->is(Kind::kInteger) && version.root->integer == 1001, where_,
            ": an older torch.save of version ", version.root->describe(), ", expected 1001");
    const Pickle system = pickle();
    const PickleValue* little = system.root->find("little_endian");
    require(little && little->is(Kind::kBool) && little->integer == 1, where_,
            ": was written on a big-endian machine; save it again on this one");
    LegacyFile file{.object = pickle()};
    std::map<std::string, int64_t> item_bytes;
    for (const auto& value : file.object.arena)
      if (value.is(Kind::kStorage))
        item_bytes[value.tensor->storage.key] =
            value.tensor->storage.dtype
                ? static_cast<int64_t>(c10::elementSize(*value.tensor->storage.dtype))
                : 1;
    const Pickle keys = pickle();
    require(keys.root->is(Kind::kList), where_, ": its storages are ", keys.root->describe());
    for (const auto* key : keys.root->items) {
      require(key->is(Kind::kText) && item_bytes.count(key->text) > 0, where_, ": storage ",
              key->describe(), " belongs to no tensor");
      const bool added = file.storages.emplace(key->text, storage(item_bytes[key->text])).second;
      require(added, where_, ": storage ", key->describe(), " appears twice");
    }
    require(position_ == bytes_.size, where_, ": ", bytes_.size - position_,
            " bytes at the end belong to no storage");
    return file;
  }

 private:
  Pickle pickle() {
    Pickle read = read_pickle(bytes_.view().substr(position_), where_);
    position_ += read.bytes;
    return read;
  }
  FileBytes storage(int64_t item) {
    uint64_t elements = 0;
    require(bytes_.size - position_ >= sizeof elements, where_, ": ends before its storages do");
    std::memcpy(&elements, bytes_.data.get() + position_, sizeof elements);
    position_ += sizeof elements;
    require(elements <= (bytes_.size - position_) / static_cast<uint64_t>(item), where_,
            ": a storage of ", elements, " elements reaches beyond the file (truncated?)");
    const uint64_t size = elements * static_cast<uint64_t>(item);
    position_ += size;
    return bytes_.slice(position_ - size, size);
  }

  FileBytes bytes_;
  const std::string& where_;
  uint64_t position_;
};

WeightSource read_legacy(FileBytes bytes, const std::string& where) {
  auto file = std::make_shared<LegacyFile>(LegacyReader(std::move(bytes), where).run());
  WeightSource source{.format = "PyTorch file (before 1.6)"};
  Flattener(source, where, [file, where](const PickledStorage& storage) {
    const auto found = file->storages.find(storage.key);
    require(found != file->storages.end(), where, ": storage ", printable(storage.key),
            " is missing");
    check_storage(found->second, storage, where);
    return found->second;
  }).visit(*file->object.root, "");
  return source;
}

}  // namespace

bool is_pytorch_file(const FileBytes& bytes) {
  return ZipArchive::is_zip(bytes) || bytes.view().substr(0, kLegacyMagic.size()) == kLegacyMagic;
}

WeightSource read_pytorch_bytes(FileBytes bytes, const std::string& where) {
  require(is_pytorch_file(bytes), where, ": neither a zip archive nor an older file of torch.save");
  if (!ZipArchive::is_zip(bytes)) return read_legacy(std::move(bytes), where);
  const auto archive = std::make_shared<PytorchArchive>(std::move(bytes), where);
  WeightSource source{.format = archive->is_torchscript() ? "TorchScript archive" : "PyTorch file"};
  Flattener(source, where, [archive](const PickledStorage& storage) {
    return archive->storage(storage);
  }).visit(archive->root(), "");
  // Flags and numbers of a program's modules (training, ...), hundreds of them.
  if (archive->is_torchscript()) source.others.clear();
  return source;
}

WeightSource read_pytorch_file(const std::filesystem::path& path) {
  return read_pytorch_bytes(map_file(path, 4, "PyTorch"), path.string());
}

}  // namespace cosmos::modules
