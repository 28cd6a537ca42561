// Folders of torch.distributed.checkpoint: `.metadata` is a pickle of plain records that says where
// the chunks of every tensor lie; each chunk is a whole file of torch.save inside a .distcp file.

#include <map>
#include <tuple>

#include "modules/hub/atomic_file.h"
#include "modules/hub/chunked_tensor.h"
#include "modules/hub/folder_member.h"
#include "modules/hub/pickle.h"
#include "modules/hub/pytorch_file.h"

namespace cosmos::modules {
namespace {

using Kind = PickleValue::Kind;

constexpr const char* kMetadata = ".metadata";

// Reads fields of records, naming the file and the field in errors.
struct Fields {
  const std::string& where;

  const PickleValue& get(const PickleValue& record, const char* field) const {
    const PickleValue* found = record.find(field);
    require(found != nullptr, where, ": ", record.describe(), " without ", field);
    return *found;
  }
  const std::vector<PickleValue*>& dict(const PickleValue& record, const char* field) const {
    const PickleValue& found = get(record, field);
    require(found.is(Kind::kDict), where, ": ", field, ": expected a dict, got ", found.describe());
    return found.items;
  }
  std::string text(const PickleValue& record, const char* field) const {
    const PickleValue& found = get(record, field);
    require(found.is(Kind::kText), where, ": ", field, ": expected a text, got ", found.describe());
    return found.text;
  }
  uint64_t size(const PickleValue& record, const char* field) const {
    const PickleValue& found = get(record, field);
    require(found.is(Kind::kInteger) && found.integer >= 0, where, ": ", field,
            ": expected a size, got ", found.describe());
    return static_cast<uint64_t>(found.integer);
  }
  std::vector<int64_t> sizes(const PickleValue& record, const char* field) const {
    const PickleValue& found = get(record, field);
    require(found.is(Kind::kTuple) || found.is(Kind::kList), where, ": ", field,
            ": expected a list of sizes, got ", found.describe());
    std::vector<int64_t> sizes;
    for (const auto* item : found.items) {
      require(item->is(Kind::kInteger) && item->integer >= 0, where, ": ", field,
              ": expected a size, got ", item->describe());
      sizes.push_back(item->integer);
    }
    return sizes;
  }
  // TensorProperties pickle as a tuple that begins with the dtype, in older versions as a dict.
  torch::Dtype dtype(const PickleValue& metadata) const {
    const PickleValue& properties = get(metadata, "properties");
    const PickleValue* found = properties.find("dtype");
    if (!found && !properties.items.empty() && properties.items[0]->is(Kind::kTuple) &&
        !properties.items[0]->items.empty())
      found = properties.items[0]->items[0];
    require(found && found->is(Kind::kDtype), where, ": a tensor without a dtype");
    return static_cast<torch::Dtype>(found->integer);
  }
};

using ChunkKey = std::pair<std::string, std::vector<int64_t>>;

// Where each chunk lies, by tensor and offset.
class ChunkTable {
 public:
  ChunkTable(const std::filesystem::path& dir, const PickleValue& metadata, const Fields& fields)
      : dir_(dir), fields_(fields) {
    const auto& items = fields.dict(metadata, "storage_data");
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      const PickleValue* offset = items[i]->find("offset");
      if (!offset || offset->is(Kind::kNone)) continue;  // bytes, not a tensor
      places_[{fields.text(*items[i], "fqn"), fields.sizes(*items[i], "offset")}] = items[i + 1];
    }
  }

  FileBytes find(const std::string& name, const std::vector<int64_t>& offset) {
    const auto found = places_.find({name, offset});
    require(found != places_.end(), fields_.where, ": ", printable(name), ": the chunk at ",
            c10::IntArrayRef(offset), " lies nowhere");
    const PickleValue& info = *found->second;
    const PickleValue* transforms = info.find("transform_descriptors");
    require(!transforms || transforms->is(Kind::kNone) || transforms->items.empty(), fields_.where,
            ": ", printable(name), ": is stored compressed; save it plainly");
    const std::string file = fields_.text(info, "relative_path");
    auto opened = files_.find(file);
    if (opened == files_.end())
      opened = files_
                   .emplace(file, map_file(folder_member(dir_, file, fields_.where), 1,
                                           "distributed checkpoint"))
                   .first;
    const uint64_t begin = fields_.size(info, "offset"), count = fields_.size(info, "length");
    require(begin <= opened->second.size && count <= opened->second.size - begin, fields_.where,
            ": ", printable(name), ": bytes ", begin, " to ", begin, " + ", count, " lie outside ",
            printable(file), " (truncated?)");
    return opened->second.slice(begin, count);
  }

 private:
  const std::filesystem::path& dir_;
  const Fields& fields_;
  std::map<ChunkKey, const PickleValue*> places_;
  std::map<std::string, FileBytes> files_;
};

// The tensor that a chunk's bytes hold, which must be what the metadata say.
Tensor read_chunk(const FileBytes& bytes, torch::Dtype dtype, const std::vector<int64_t>& shape,
                  const std::string& where) {
  const WeightSource source = read_pytorch_bytes(bytes, where);
  const auto found = source.tensors.find(kOnlyTensor);
  require(source.tensors.size() == 1 && found != source.tensors.end(), where,
          ": a chunk that is no tensor");
  require(found->second.dtype == dtype && found->second.shape == shape, where, ": the chunk is ",
          c10::toString(found->second.dtype), " ", c10::IntArrayRef(found->second.shape),
          ", its metadata say ", c10::toString(dtype), " ", c10::IntArrayRef(shape));
  return found->second.read();
}

LazyTensor read_tensor(const std::string& name, const PickleValue& metadata, const Fields& fields,
                       ChunkTable& table) {
  const std::string where = fields.where + ": " + printable(name);
  const torch::Dtype dtype = fields.dtype(metadata);
  const PickleValue& list = fields.get(metadata, "chunks");
  require(list.is(Kind::kList), where, ": its chunks are ", list.describe());
  std::vector<TensorChunk> chunks;
  for (const auto* item : list.items) {
    const std::vector<int64_t> offset = fields.sizes(*item, "offsets"),
                               shape = fields.sizes(*item, "sizes");
    const FileBytes bytes = table.find(name, offset);
    chunks.push_back({offset, {dtype, shape, [bytes, dtype, shape, where] {
                                 return read_chunk(bytes, dtype, shape, where);
                               }}});
  }
  return assemble(dtype, fields.sizes(metadata, "size"), std::move(chunks), where);
}

}  // namespace

WeightSource read_dcp_folder(const std::filesystem::path& dir) {
  const std::string where = (dir / kMetadata).string();
  const FileBytes bytes = map_file(dir / kMetadata, 2, "checkpoint's .metadata");
  const Pickle pickle = read_pickle(bytes.view(), where);
  const Fields fields{where};
  ChunkTable table(dir, *pickle.root, fields);
  WeightSource source{.format = "distributed checkpoint"};
  const auto& items = fields.dict(*pickle.root, "state_dict_metadata");
  for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
    require(items[i]->is(Kind::kText), where, ": ", items[i]->describe(), " names a tensor");
    const std::string& name = items[i]->text;
    if (items[i + 1]->find("chunks") == nullptr) {
      source.others[name] = "bytes of a Python object";
      continue;
    }
    const bool added =
        source.tensors.emplace(name, read_tensor(name, *items[i + 1], fields, table)).second;
    require(added, where, ": ", printable(name), " appears twice");
  }
  return source;
}

}  // namespace cosmos::modules
