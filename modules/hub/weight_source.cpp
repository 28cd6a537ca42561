#include "modules/hub/weight_source.h"

#include "modules/hub/atomic_file.h"
#include "modules/hub/chunked_tensor.h"
#include "modules/hub/json_file.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/safetensors.h"
#include "modules/hub/weight_folder.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

// torch.distributed.checkpoint's Hugging Face writer: every rank a safetensors file, its share of
// each tensor at the offsets that the file's metadata give.
constexpr const char* kShardingInfo = "DCP_SHARDING_INFO";

LazyTensor lazy_tensor(const std::shared_ptr<const SafetensorsFile>& file,
                       const std::string& name) {
  const TensorInfo& info = file->infos().at(name);
  return {info.dtype, info.shape, [file, name] { return file->get(name); }};
}

WeightSource read_safetensors_file(const fs::path& path) {
  const auto file = std::make_shared<const SafetensorsFile>(path);
  WeightSource source{.format = "safetensors file"};
  for (const auto& [name, info] : file->infos()) source.tensors[name] = lazy_tensor(file, name);
  return source;
}

std::vector<int64_t> saved_offset(const Json& sharding, const std::string& name,
                                  const std::string& where) {
  const bool known = sharding.is_object() && sharding.contains(name) &&
                     sharding[name].is_object() && sharding[name].contains("saved_offsets") &&
                     sharding[name]["saved_offsets"].is_array();
  require(known, where, ": ", kShardingInfo, " has no saved_offsets for ", printable(name));
  std::vector<int64_t> offset;
  for (const auto& value : sharding[name]["saved_offsets"]) {
    require(value.is_number_unsigned() && value.get<uint64_t>() < (1ull << 60), where,
            ": saved_offsets of ", printable(name), ": expected whole numbers");
    offset.push_back(value.get<int64_t>());
  }
  return offset;
}

// Empty unless `dir` holds safetensors files with sharding information.
std::vector<std::shared_ptr<const SafetensorsFile>> sharded_files(const fs::path& dir) {
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error))
    if (entry.path().extension() == ".safetensors" && entry.is_regular_file(error))
      files.push_back(std::make_shared<const SafetensorsFile>(entry.path()));
  for (const auto& file : files)
    if (file->metadata().count(kShardingInfo) == 0) return {};
  return files;
}

WeightSource read_sharded_safetensors(
    const fs::path& dir, const std::vector<std::shared_ptr<const SafetensorsFile>>& files) {
  std::map<std::string, std::vector<TensorChunk>> chunks;
  for (const auto& file : files) {
    const std::string where = file->path().string();
    const Json sharding = parse_json(file->metadata().at(kShardingInfo), where);
    for (const auto& [name, info] : file->infos())
      chunks[name].push_back({saved_offset(sharding, name, where), lazy_tensor(file, name)});
  }
  WeightSource source{.format = "sharded safetensors"};
  for (auto& [name, parts] : chunks) {
    const std::string where = dir.string() + ": " + printable(name);
    // The files say where a share begins, not how large the whole is: the furthest corner.
    std::vector<int64_t> shape(parts[0].offset.size(), 0);
    for (const auto& part : parts) {
      require(part.offset.size() == shape.size() && part.part.shape.size() == shape.size(), where,
              ": shares of different rank");
      for (std::size_t d = 0; d < shape.size(); ++d)
        shape[d] = std::max(shape[d], part.offset[d] + part.part.shape[d]);
    }
    const torch::Dtype dtype = parts[0].part.dtype;
    source.tensors[name] = assemble(dtype, shape, std::move(parts), where);
  }
  return source;
}

WeightSource read_weight_folder(const fs::path& dir) {
  const auto folder = std::make_shared<const WeightFolder>(dir);
  WeightSource source{.format = "safetensors folder"};
  for (const auto& name : folder->names()) {
    const TensorInfo& info = folder->info(name);
    source.tensors[name] = {info.dtype, info.shape, [folder, name] { return folder->get(name); }};
  }
  return source;
}

WeightSource open_folder(const fs::path& dir) {
  if (is_file(dir / ".metadata")) return read_dcp_folder(dir);
  const auto files = sharded_files(dir);
  if (!files.empty()) return read_sharded_safetensors(dir, files);
  return read_weight_folder(dir);
}

}  // namespace

WeightSource open_weights(const fs::path& path) {
  std::error_code error;
  require(fs::exists(path, error), path.string(), ": no such file or folder");
  if (fs::is_directory(path, error)) return open_folder(path);
  const FileBytes bytes = map_file(path, 8, "weights");
  if (is_pytorch_file(bytes)) return read_pytorch_bytes(bytes, path.string());
  // A safetensors file begins with the length of its header, then JSON.
  if (path.extension() == ".safetensors" || bytes.view().substr(8, 1) == "{")
    return read_safetensors_file(path);
  const bool pickle = static_cast<uint8_t>(bytes.view()[0]) == 0x80;
  fail(path.string(), pickle ? ": a bare pickle; weights are files of torch.save"
                             : ": neither a file of torch.save, TorchScript nor safetensors");
}

}  // namespace cosmos::modules
