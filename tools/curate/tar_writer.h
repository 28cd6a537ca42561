#pragma once

// Tar archives whose bytes follow from their members alone: no dates, no owners.

#include <memory>

#include "modules/hub/atomic_file.h"

struct archive;

namespace cosmos::curate {

/// Through libarchive, as POSIX ustar; a member that ustar cannot hold (8 GiB, a long name) gets
/// pax headers. Under its final name once commit() returns.
class TarWriter {
 public:
  explicit TarWriter(const std::filesystem::path& path);
  ~TarWriter();
  TarWriter(const TarWriter&) = delete;
  TarWriter& operator=(const TarWriter&) = delete;

  void add(const std::string& name, std::string_view bytes);
  /// A file's content, a part in memory at a time.
  void add_file(const std::string& name, const std::filesystem::path& path);
  void commit();

 private:
  void begin(const std::string& name, uint64_t size);
  void write(std::string_view bytes);
  void check(int code) const;

  std::string name_;
  modules::AtomicFile file_;
  archive* archive_ = nullptr;
};

}  // namespace cosmos::curate
