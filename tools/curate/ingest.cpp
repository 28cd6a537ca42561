#include "tools/curate/ingest.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "tools/curate/tar_reader.h"
#include "trainer/data/clip_list.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;

class Lister {
 public:
  explicit Lister(fs::path unpacked) : unpacked_(std::move(unpacked)) {}
  void input(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_directory(status)) {
      folder(path);
    } else if (fs::is_regular_file(status) && path.extension() == ".txt") {
      list(path);
    } else {
      file(path);
    }
  }
  Listing take() { return std::move(listing_); }

 private:
  void add(const fs::path& path, const std::string& reason = "") {
    const std::string name = fs::absolute(path).lexically_normal().string();
    if (seen_.insert(name).second) listing_.videos.emplace_back(name, reason);
  }

  void file(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_regular_file(status)) return is_tar(path) ? archive(path) : add(path);
    add(path, error                 ? error.message()
              : !fs::exists(status) ? "No such file or directory"
                                    : "is not a regular file");
  }

  void folder(const fs::path& path) {
    std::vector<fs::path> entries;
    std::error_code error;
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
      entries.push_back(it->path());
    if (error) add(path, "cannot be listed: " + error.message());
    std::sort(entries.begin(), entries.end());
    for (const fs::path& entry : entries) {
      const fs::file_status status = fs::symlink_status(entry, error);
      if (fs::is_directory(status)) {
        folder(entry);
      } else if (trainer::is_video(entry) || is_tar(entry)) {
        file(entry);
      } else {
        ++listing_.other_files;
      }
    }
  }

  void archive(const fs::path& path) {
    const Unpacked unpacked = unpack_videos(path, unpacked_);
    for (const fs::path& video : unpacked.videos) add(video);
    listing_.other_files += unpacked.other_files;
    if (!unpacked.failure.empty()) add(path, unpacked.failure);
  }

  void list(const fs::path& path) {
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) {
      while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
      if (!line.empty()) file(path.parent_path() / line);
    }
    if (in.bad()) add(path, "cannot be read");
  }

  fs::path unpacked_;
  Listing listing_;
  std::set<std::string> seen_;
};

}  // namespace

Listing list_inputs(const std::vector<std::string>& inputs, const fs::path& unpacked) {
  Lister lister(unpacked);
  for (const std::string& input : inputs) lister.input(input);
  return lister.take();
}

}  // namespace cosmos::curate
