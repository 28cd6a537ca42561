#pragma once

// Tar archives (POSIX ustar) whose bytes follow from their members alone: no dates, no owners.

#include "modules/hub/atomic_file.h"

namespace cosmos::curate {

/// Under its final name once commit() returns.
class TarWriter {
 public:
  explicit TarWriter(const std::filesystem::path& path) : file_(path) {}

  /// name: below 100 bytes.
  void add(const std::string& name, std::string_view bytes);
  /// A file's content, a part in memory at a time.
  void add_file(const std::string& name, const std::filesystem::path& path);
  void commit();

 private:
  void begin(const std::string& name, uint64_t size);
  void pad(uint64_t size);

  modules::AtomicFile file_;
};

}  // namespace cosmos::curate
