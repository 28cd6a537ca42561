#include "trainer/checkpoint/store.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "ops/core/error.h"
#include "trainer/checkpoint/crc32c.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

constexpr const char* kManifest = "trainer.json";
constexpr const char* kTemporaryPrefix = ".tmp-";
constexpr int64_t kFormat = 1;

void sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, path.string(), ": ", std::strerror(errno));
  const int failed = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  require(failed == 0, path.string(), ": fsync: ", std::strerror(error));
}

Json list_files(const fs::path& dir) {
  Json files = Json::object();
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_directory()) {
      sync_path(entry.path());
      continue;
    }
    sync_path(entry.path());
    files[entry.path().lexically_relative(dir).generic_string()] = {
        {"bytes", entry.file_size()}, {"crc32c", crc32c_file(entry.path())}};
  }
  return files;
}

// Removes the temporary folder unless the save went through.
struct Cleanup {
  fs::path dir;
  ~Cleanup() {
    std::error_code ignored;
    if (!dir.empty()) fs::remove_all(dir, ignored);
  }
};

std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (name.rfind(kPrefix, 0) != 0 || name.size() == kPrefix.size()) return std::nullopt;
  const std::string digits = name.substr(kPrefix.size());
  if (digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return std::stoll(digits);
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path dir, int64_t keep) : dir_(std::move(dir)), keep_(keep) {}

fs::path CheckpointStore::path(int64_t step) const {
  char name[32];
  std::snprintf(name, sizeof(name), "step-%08lld", static_cast<long long>(step));
  return dir_ / name;
}

fs::path CheckpointStore::save(int64_t step, const Json& info,
                               const std::function<void(const fs::path&)>& write) {
  const fs::path final = path(step);
  remove_temporaries();
  Cleanup temporary{dir_ / (kTemporaryPrefix + final.filename().string())};
  fs::create_directories(temporary.dir);
  write(temporary.dir);
  Json manifest = info;
  manifest["format"] = kFormat;
  manifest["step"] = step;
  manifest["files"] = list_files(temporary.dir);
  modules::write_json(temporary.dir / kManifest, manifest);
  sync_path(temporary.dir);
  if (fs::exists(final))  // saved twice: the end of a run that also saves every n steps
    fs::rename(final, dir_ / (std::string(kTemporaryPrefix) + "old-" + final.filename().string()));
  fs::rename(temporary.dir, final);
  temporary.dir.clear();
  sync_path(dir_);
  remove_old();
  return final;
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> found;
  if (!fs::is_directory(dir_)) return found;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (auto step = step_of(entry.path().filename().string())) found.push_back(*step);
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<fs::path> CheckpointStore::newest(
    const std::function<void(const std::string&)>& report) const {
  std::vector<int64_t> all = steps();
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    try {
      verify_checkpoint(path(*step));
      return path(*step);
    } catch (const Error& error) {
      report(std::string("skipping a damaged checkpoint: ") + error.what());
    }
  }
  return std::nullopt;
}

std::vector<int64_t> CheckpointStore::set_aside_after(int64_t step) const {
  std::vector<int64_t> moved;
  for (int64_t later : steps()) {
    if (later <= step) continue;
    const fs::path target = dir_ / ("abandoned-" + path(later).filename().string());
    fs::remove_all(target);
    fs::rename(path(later), target);
    moved.push_back(later);
  }
  return moved;
}

// Renamed before it is deleted: a deletion cut short leaves no half checkpoint under a final name.
void CheckpointStore::remove_old() const {
  const std::vector<int64_t> all = steps();
  if (keep_ > 0) {
    for (std::size_t i = 0; i + static_cast<std::size_t>(keep_) < all.size(); ++i) {
      const fs::path old = path(all[i]);
      fs::rename(old, dir_ / (kTemporaryPrefix + old.filename().string()));
    }
  }
  remove_temporaries();
}

void CheckpointStore::remove_temporaries() const {
  if (!fs::is_directory(dir_)) return;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (entry.path().filename().string().rfind(kTemporaryPrefix, 0) == 0)
      stale.push_back(entry.path());
  for (const fs::path& path : stale) fs::remove_all(path);
}

Json read_manifest(const fs::path& checkpoint) {
  require(fs::is_directory(checkpoint), checkpoint.string(), ": no such checkpoint folder");
  const fs::path manifest_path = checkpoint / kManifest;
  require(fs::exists(manifest_path), checkpoint.string(), ": not a checkpoint (no ", kManifest,
          ")");
  const Json manifest = modules::read_json(manifest_path);
  const std::string where = manifest_path.string();
  require(manifest.is_object() && manifest.value("format", Json()) == kFormat, where,
          ": expected format ", kFormat);
  require(manifest.contains("step") && manifest["step"].is_number_integer(), where,
          ": step is missing");
  require(manifest.contains("files") && manifest["files"].is_object(), where, ": files is missing");
  return manifest;
}

Json verify_checkpoint(const fs::path& checkpoint) {
  const Json manifest = read_manifest(checkpoint);
  const std::string where = (checkpoint / kManifest).string();
  for (const auto& [name, entry] : manifest["files"].items()) {
    const fs::path file = checkpoint / name;
    require(name.find("..") == std::string::npos && name.front() != '/', where, ": ", name,
            " leaves the checkpoint");
    require(fs::is_regular_file(file), file.string(), ": missing");
    require(fs::file_size(file) == entry.at("bytes").get<uint64_t>(), file.string(), ": has ",
            fs::file_size(file), " bytes, the manifest says ", entry.at("bytes").dump());
    require(crc32c_file(file) == entry.at("crc32c").get<uint32_t>(), file.string(),
            ": content does not match its checksum");
  }
  return manifest;
}

}  // namespace cosmos::trainer
