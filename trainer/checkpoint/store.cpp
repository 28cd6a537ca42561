#include "trainer/checkpoint/store.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <unistd.h>
#include <utility>

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

void sync_folders(const fs::path& dir) {
  for (const auto& entry : fs::recursive_directory_iterator(dir))
    if (entry.is_directory()) sync_path(entry.path());
  sync_path(dir);
}

std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (name.rfind(kPrefix, 0) != 0 || name.size() == kPrefix.size()) return std::nullopt;
  const std::string digits = name.substr(kPrefix.size());
  if (digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return std::stoll(digits);
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path dir, Retention keep)
    : dir_(std::move(dir)), keep_(keep) {}

fs::path CheckpointStore::path(int64_t step) const {
  char name[32];
  std::snprintf(name, sizeof(name), "step-%08lld", static_cast<long long>(step));
  return dir_ / name;
}

fs::path CheckpointStore::work_path(int64_t step) const {
  return dir_ / (kTemporaryPrefix + path(step).filename().string());
}

fs::path CheckpointStore::begin(int64_t step) {
  sweep();
  fs::create_directories(work_path(step));
  return work_path(step);
}

fs::path CheckpointStore::commit(int64_t step, const Json& info, const FileSums& sums) {
  const fs::path work = work_path(step), final = path(step);
  Json manifest = info;
  manifest["format"] = kFormat;
  manifest["step"] = step;
  manifest["files"] = Json::object();
  for (const auto& [name, sum] : sums) {
    const fs::path file = work / name;
    require(fs::is_regular_file(file) && fs::file_size(file) == sum.bytes, file.string(),
            ": expected ", sum.bytes, " bytes after the ranks had written it; is ", dir_.string(),
            " one folder for all of them?");
    manifest["files"][name] = {{"bytes", sum.bytes}, {"crc32c", sum.crc}};
  }
  modules::write_json(work / kManifest, manifest);
  sync_folders(work);
  if (fs::exists(final))
    retire(step);  // saved twice: the end of a run that also saves every n steps
  fs::rename(work, final);
  sync_path(dir_);
  retire_old();
  return final;
}

void CheckpointStore::abandon(int64_t step) {
  std::error_code ignored;
  fs::remove_all(work_path(step), ignored);
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> found;
  if (!fs::is_directory(dir_)) return found;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (auto step = step_of(entry.path().filename().string())) found.push_back(*step);
  std::sort(found.begin(), found.end());
  return found;
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

std::optional<double> CheckpointStore::loss_of(int64_t step) const {
  try {
    const Json loss = read_manifest(path(step)).value("val_loss", Json());
    return loss.is_number() ? std::optional(loss.get<double>()) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;  // damaged: not among the best
  }
}

// Renamed before it is deleted: a deletion cut short leaves no half checkpoint under a final name.
void CheckpointStore::retire_old() const {
  const std::vector<int64_t> all = steps();
  if (keep_.last == 0) return;
  std::set<int64_t> kept(all.end() - std::min<int64_t>(keep_.last, std::ssize(all)), all.end());
  std::vector<std::pair<double, int64_t>> losses;
  for (const int64_t step : all) {
    if (keep_.every > 0 && step % keep_.every == 0) kept.insert(step);
    if (const auto loss = keep_.best > 0 ? loss_of(step) : std::nullopt)
      losses.emplace_back(*loss, step);
  }
  std::sort(losses.begin(), losses.end());
  for (std::size_t i = 0; i < losses.size() && std::cmp_less(i, keep_.best); ++i)
    kept.insert(losses[i].second);
  for (const int64_t step : all)
    if (kept.count(step) == 0) retire(step);
}

void CheckpointStore::retire(int64_t step) const {
  const fs::path old = path(step);
  fs::rename(old, dir_ / (std::string(kTemporaryPrefix) + "old-" + old.filename().string()));
}

void CheckpointStore::sweep() const {
  if (!fs::is_directory(dir_)) return;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (entry.path().filename().string().starts_with(kTemporaryPrefix))
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

FileSums sum_part(const fs::path& checkpoint, int64_t part, int64_t parts) {
  const std::string where = (checkpoint / kManifest).string();
  FileSums sums;
  const Json manifest = read_manifest(checkpoint);
  for (const auto& [name, entry] : manifest["files"].items()) {
    const fs::path file = checkpoint / name;
    require(name.find("..") == std::string::npos && name.front() != '/', where, ": ", name,
            " leaves the checkpoint");
    require(fs::is_regular_file(file), file.string(), ": missing");
    const uint64_t size = fs::file_size(file);
    require(size == entry.at("bytes").get<uint64_t>(), file.string(), ": has ", size,
            " bytes, the manifest says ", entry.at("bytes").dump());
    const uint64_t begin = size * part / parts, end = size * (part + 1) / parts;
    sums[name] = {size, crc32c_of_range(file, begin, end, size)};
  }
  return sums;
}

void add_sums(FileSums& sums, const FileSums& part) {
  for (const auto& [name, sum] : part) {
    sums[name].bytes = sum.bytes;
    sums[name].crc ^= sum.crc;
  }
}

void check_sums(const fs::path& checkpoint, const FileSums& sums) {
  const Json manifest = read_manifest(checkpoint);
  for (const auto& [name, entry] : manifest["files"].items())
    require(sums.at(name).crc == entry.at("crc32c").get<uint32_t>(), (checkpoint / name).string(),
            ": content does not match its checksum");
}

Json verify_checkpoint(const fs::path& checkpoint) {
  check_sums(checkpoint, sum_part(checkpoint, 0, 1));
  return read_manifest(checkpoint);
}

}  // namespace cosmos::trainer
