#pragma once

// Videos that come in tar shards (WebDataset's, or any): unpacked beside the output.

#include <filesystem>
#include <string>
#include <vector>

namespace cosmos::curate {

/// Whether the file's ending is that of a tar archive: .tar, .tgz, .tar.gz, .tar.zst, .tar.xz, ...
bool is_tar(const std::filesystem::path& path);

struct Unpacked {
  std::vector<std::filesystem::path> videos;  ///< in order of the archive
  int64_t other_files = 0;                    ///< members whose ending is not that of a video
  std::string failure{};                      ///< why the rest could not be read
};

/// The members of `tar` with a video's ending, as files {number}-{name} in a folder of `under` that
/// follows from the archive's path. Whole files only; what is there of an archive that did not
/// change since (size, time) is taken as it is.
Unpacked unpack_videos(const std::filesystem::path& tar, const std::filesystem::path& under);

}  // namespace cosmos::curate
