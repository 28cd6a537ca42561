#include "modules/hub/weight_folder.h"

#include <algorithm>
#include <cstdio>
#include <regex>
#include <set>

#include "modules/core/fields.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/folder_member.h"
#include "modules/hub/json_file.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_no_weights(const fs::path& dir) {
  std::error_code error;
  require(fs::is_directory(dir, error), dir.string(), ": no such folder");
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string ending = entry.path().extension().string();
    if (ending == ".bin" || ending == ".pt" || ending == ".pth")
      fail(dir.string(), ": only pickled weights here (",
           printable(entry.path().filename().string()),
           "); bring them in with cosmos-convert import");
  }
  fail(dir.string(), ": no weights here: expected ", kDiffusersWeights, ".safetensors or ",
       kTransformersWeights, ".safetensors, or either's .index.json");
}

}  // namespace

WeightFolder::WeightFolder(const fs::path& dir) : dir_(dir) {
  for (const char* base : {kDiffusersWeights, kTransformersWeights}) {
    base_name_ = base;
    const fs::path single = dir / (base_name_ + ".safetensors");
    const fs::path index = dir / (base_name_ + ".safetensors.index.json");
    if (is_file(single)) {
      files_.emplace_back(single);
      for (const auto& [name, info] : files_.back().infos()) owner_[name] = 0;
      return;
    }
    if (is_file(index)) {
      open_index(index);
      return;
    }
  }
  fail_no_weights(dir);
}

void WeightFolder::open_index(const fs::path& index) {
  const std::string where = index.string();
  const Json json = read_json(index);
  require(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(), where,
          ": expected an object \"weight_map\" of tensor name to file name");
  std::map<std::string, std::size_t> position;
  for (const auto& [name, file] : json["weight_map"].items()) {
    require(file.is_string(), where, ": weight_map.", printable(name),
            ": expected a file name, got ", describe(file));
    const auto& shard = file.get_ref<const std::string&>();
    const auto [found, added] = position.emplace(shard, files_.size());
    if (added) files_.emplace_back(folder_member(dir_, shard, where));
    require(files_[found->second].contains(name), where, ": ", printable(name), " is not in ",
            printable(shard), " (shards of another save?)");
    owner_[name] = found->second;
  }
  for (const auto& file : files_)
    for (const auto& [name, info] : file.infos())
      require(owner_.count(name) > 0 && &files_[owner_[name]] == &file, where, ": ",
              file.path().filename().string(), " holds ", printable(name),
              ", which the index does not place there (shards of another save?)");
}

std::vector<std::string> WeightFolder::names() const {
  std::vector<std::string> all;
  for (const auto& [name, file] : owner_) all.push_back(name);
  return all;
}

const SafetensorsFile& WeightFolder::file_of(const std::string& name) const {
  const auto found = owner_.find(name);
  require(found != owner_.end(), dir_.string(), ": has no tensor ", printable(name));
  return files_[found->second];
}

const TensorInfo& WeightFolder::info(const std::string& name) const {
  return file_of(name).infos().at(name);
}

Tensor WeightFolder::get(const std::string& name) const {
  return file_of(name).get(name);
}

TensorMap WeightFolder::tensors() const {
  TensorMap all;
  for (const auto& [name, file] : owner_) all[name] = get(name);
  return all;
}

bool WeightFolder::holds(const Tensor& tensor) const {
  return std::any_of(files_.begin(), files_.end(),
                     [&](const SafetensorsFile& file) { return file.holds(tensor); });
}

namespace {

int64_t bytes_of(const TensorInfo& info) {
  auto bytes = static_cast<int64_t>(c10::elementSize(info.dtype));
  for (const int64_t size : info.shape) bytes *= size;
  return bytes;
}

std::string shard_name(const std::string& base, std::size_t index, std::size_t count) {
  if (count == 1) return base + ".safetensors";
  char suffix[64];
  std::snprintf(suffix, sizeof suffix, "-%05zu-of-%05zu.safetensors", index + 1, count);
  return base + suffix;
}

// What an earlier save of the same base name left and the new one did not overwrite.
void remove_stale(const fs::path& dir, const std::string& base,
                  const std::set<std::string>& written) {
  static const std::regex numbered("-[0-9]{5}-of-[0-9]{5}\\.safetensors");
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(base, 0) != 0 || written.count(name) > 0) continue;
    const std::string rest = name.substr(base.size());
    if (rest == ".safetensors" || rest == ".safetensors.index.json" ||
        std::regex_match(rest, numbered))
      stale.push_back(entry.path());
  }
  for (const auto& path : stale) {
    fs::remove(path, error);
    require(!error, path.string(),
            ": cannot remove this file of an earlier save: ", error.message());
  }
}

}  // namespace

// A file is filled until the next tensor would overflow it; a larger tensor gets one of its own.
std::vector<WeightFile> place_weights(const std::string& base_name,
                                      const std::map<std::string, TensorInfo>& infos,
                                      int64_t max_shard_bytes) {
  std::vector<WeightFile> files(1);
  int64_t size = 0;
  for (const auto& [name, info] : infos) {
    if (size > 0 && size + bytes_of(info) > max_shard_bytes) {
      files.emplace_back();
      size = 0;
    }
    files.back().infos[name] = info;
    size += bytes_of(info);
  }
  for (std::size_t i = 0; i < files.size(); ++i)
    files[i].name = shard_name(base_name, i, files.size());
  return files;
}

Json weight_index(const std::vector<WeightFile>& files) {
  Json weight_map = Json::object();
  int64_t total = 0;
  for (const WeightFile& file : files)
    for (const auto& [name, info] : file.infos) {
      weight_map[name] = file.name;
      total += bytes_of(info);
    }
  return {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
}

void save_weights(const fs::path& dir, const std::string& base_name, const TensorMap& tensors,
                  int64_t max_shard_bytes, const Metadata& metadata) {
  save_weights(dir, base_name, lazy_tensors(tensors), max_shard_bytes, metadata);
}

void save_weights(const fs::path& dir, const std::string& base_name, const LazyTensors& tensors,
                  int64_t max_shard_bytes, const Metadata& metadata) {
  require(max_shard_bytes > 0, dir.string(), ": max_shard_bytes must be positive, got ",
          max_shard_bytes);
  std::map<std::string, TensorInfo> infos;
  for (const auto& [name, tensor] : tensors) infos[name] = tensor_info(tensor);
  const std::vector<WeightFile> files = place_weights(base_name, infos, max_shard_bytes);
  std::set<std::string> written;
  for (const WeightFile& file : files) {
    LazyTensors content;
    for (const auto& [name, info] : file.infos) content[name] = tensors.at(name);
    save_safetensors(dir / file.name, content, metadata);
    written.insert(file.name);
  }
  if (files.size() > 1) {
    const std::string index = base_name + ".safetensors.index.json";
    write_json(dir / index, weight_index(files));
    written.insert(index);
  }
  remove_stale(dir, base_name, written);
}

}  // namespace cosmos::modules
