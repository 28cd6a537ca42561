#include "tools/curate/tar_reader.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <array>
#include <cstdio>
#include <memory>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "tools/curate/ids.h"
#include "trainer/data/clip_list.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;
using Archive = std::unique_ptr<archive, decltype(&archive_read_free)>;

/// The folder's own record: written when all members are there.
constexpr const char* kRecord = "members.json";

Archive open_archive(const fs::path& path) {
  Archive self(archive_read_new(), archive_read_free);
  if (!self) throw std::bad_alloc();
  archive_read_support_filter_all(self.get());
  archive_read_support_format_tar(self.get());
  require(archive_read_open_filename(self.get(), path.c_str(), 1 << 20) == ARCHIVE_OK,
          archive_error_string(self.get()));
  return self;
}

/// A name of its own below any folder: members' paths are not to be trusted.
std::string file_name(int64_t number, const fs::path& member) {
  char digits[24];
  std::snprintf(digits, sizeof(digits), "%06lld-", static_cast<long long>(number));
  std::string name = member.filename().string();
  constexpr std::size_t kLongest = 200;
  if (name.size() > kLongest) name = name.substr(name.size() - kLongest);
  return digits + name;
}

void save_member(archive* self, const fs::path& file) {
  modules::AtomicFile out(file);
  std::vector<char> part(std::size_t{1} << 20);
  for (;;) {
    const la_ssize_t count = archive_read_data(self, part.data(), part.size());
    require(count >= 0, archive_error_string(self));
    if (count == 0) break;
    out.write(part.data(), static_cast<std::size_t>(count));
  }
  out.commit();
}

/// Reads all members; `names` are the files that were made, in order.
void read_members(const fs::path& tar, const fs::path& folder, Unpacked& result, Json& names) {
  const Archive self = open_archive(tar);
  archive_entry* entry = nullptr;
  for (int64_t number = 0;; ++number) {
    const int code = archive_read_next_header(self.get(), &entry);
    if (code == ARCHIVE_EOF) return;
    require(code == ARCHIVE_OK || code == ARCHIVE_WARN, archive_error_string(self.get()));
    const char* path = archive_entry_pathname(entry);
    if (archive_entry_filetype(entry) != AE_IFREG || !path) continue;
    if (!trainer::is_video(path)) {
      ++result.other_files;
      continue;
    }
    const std::string name = file_name(number, path);
    save_member(self.get(), folder / name);
    result.videos.push_back(folder / name);
    names.push_back(name);
  }
}

}  // namespace

bool is_tar(const fs::path& path) {
  const std::string end = path.extension().string();
  constexpr std::array kEndings = {".gz", ".zst", ".xz", ".bz2", ".lz4"};
  return end == ".tar" || end == ".tgz" ||
         (path.stem().extension() == ".tar" &&
          std::find(kEndings.begin(), kEndings.end(), end) != kEndings.end());
}

Unpacked unpack_videos(const fs::path& tar, const fs::path& under) {
  const fs::path folder = under / uuid5(fs::absolute(tar).lexically_normal().string());
  Unpacked result;
  try {
    const Json version = {fs::file_size(tar), fs::last_write_time(tar).time_since_epoch().count()};
    if (modules::is_file(folder / kRecord)) {
      const Json record = modules::read_json(folder / kRecord);
      if (record["version"] == version) {
        for (const Json& name : record["videos"])
          result.videos.push_back(folder / name.get<std::string>());
        result.other_files = record["other_files"];
        return result;
      }
    }
    Json names = Json::array();
    read_members(tar, folder, result, names);
    // Names are bytes; such as are no UTF-8 cannot be recorded, and are unpacked anew each time.
    try {
      modules::write_json(
          folder / kRecord,
          {{"version", version}, {"videos", names}, {"other_files", result.other_files}});
    } catch (const Json::exception&) {
    }
  } catch (const std::exception& error) {
    result.failure = error.what();
  }
  return result;
}

}  // namespace cosmos::curate
