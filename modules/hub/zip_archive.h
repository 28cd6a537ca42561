#pragma once

// Zip containers as torch.save and TorchScript write them (APPNOTE.TXT 6.3.10): entries that are
// stored as they are, zip64 fields, data descriptors. Untrusted: offsets, sizes, names and overlaps
// are checked before the first entry is read, and nothing is ever decompressed, so that no file can
// unfold into more memory than it has bytes. Check sums of contents are not verified: that would
// read every weight twice.

#include <map>
#include <string>
#include <vector>

#include "modules/hub/mapped_file.h"

namespace cosmos::modules {

class ZipArchive {
 public:
  /// `where` names the file in errors. Throws Error on anything that is not a well-formed archive.
  ZipArchive(FileBytes bytes, std::string where);

  /// Whether `bytes` begin as a zip archive does.
  static bool is_zip(const FileBytes& bytes);

  bool contains(const std::string& name) const { return entries_.count(name) > 0; }
  std::vector<std::string> names() const;
  /// Bytes of an entry, shared with the file. Throws Error when there is none or it is compressed.
  FileBytes read(const std::string& name) const;

 private:
  struct Entry {
    uint64_t header = 0, begin = 0, size = 0;  ///< local header, first byte, stored bytes
    bool stored = true;
  };
  struct Directory {
    uint64_t begin = 0, size = 0, count = 0;
  };
  Directory find_directory() const;
  void read_directory(const Directory& directory);
  void check_local_headers(const Directory& directory);
  template <typename Integer>
  Integer at(uint64_t offset, const char* what) const;

  FileBytes bytes_;
  std::string where_;
  std::map<std::string, Entry> entries_;
};

}  // namespace cosmos::modules
