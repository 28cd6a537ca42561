#pragma once

// Which files the inputs name.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace cosmos::curate {

struct Listing {
  /// Absolute paths in order, each once; with why it cannot be opened, or "".
  std::vector<std::pair<std::string, std::string>> videos;
  int64_t other_files = 0;  ///< in folders and archives, whose ending is not that of a video
};

/// Files as they are; of folders, at any depth, the files with a video's ending, sorted (links to
/// folders are not followed, so that no loop is entered); of lists (.txt) every line, paths counted
/// from the list's folder; of tar archives, wherever they are met, the videos in them, unpacked
/// into `unpacked`. What is missing or cannot be listed is part of the listing.
Listing list_inputs(const std::vector<std::string>& inputs, const std::filesystem::path& unpacked);

}  // namespace cosmos::curate
