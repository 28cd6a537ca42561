#pragma once

// Files as memory: what is not touched is not read, and what is read costs no copy.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace cosmos::modules {

/// A stretch of bytes that stays valid as long as somebody holds it.
struct FileBytes {
  std::shared_ptr<char> data;
  uint64_t size = 0;

  std::string_view view() const { return {data.get(), size}; }
  /// `count` bytes from `begin`; the caller has checked that they are there.
  FileBytes slice(uint64_t begin, uint64_t count) const {
    return {std::shared_ptr<char>(data, data.get() + begin), count};
  }
};

/// Maps a regular file of at least `min_bytes` privately: writing into the bytes changes private
/// memory, never the file. `what` names the format in the error for a shorter one. (What no check
/// can catch is another process truncating the file while it is mapped.)
FileBytes map_file(const std::filesystem::path& path, uint64_t min_bytes, const char* what);

/// Brings mapped bytes into memory, front to back by all threads, and returns when a read of any of
/// them waits for no disk and no fault. Throws Error, beginning with `where`, when the file has
/// become shorter than its mapping, or the disk fails.
void bring_in(const std::vector<std::string_view>& stretches, const std::string& where);

}  // namespace cosmos::modules
