#pragma once

// Files that appear under their final name only when complete.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace cosmos::modules {

/// Writes into a hidden temporary file of the same folder; commit() makes it durable (fsync) and
/// renames it. Without commit() (an exception, a full disk) the destructor removes the temporary
/// and whatever stood under the final name before stays as it was. Missing parent folders are
/// created.
///
///   AtomicFile file(path);
///   file.write(bytes, size);
///   file.commit();
///
/// Every failure throws Error naming the file and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Claims `bytes` of disk in advance, so that a full disk is known before the work is done.
  void reserve(uint64_t bytes);
  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  [[noreturn]] void fail_errno(const char* action) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

/// The whole of `text` under `path`, or nothing.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Whether `path` is a regular file; false where it cannot be looked at.
bool is_file(const std::filesystem::path& path);

/// The whole file. Throws Error when it is missing, not a regular file, or larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes);

/// `text` fit for one line of an error message: control characters escaped, cut at 200 bytes.
std::string printable(std::string_view text);

}  // namespace cosmos::modules
