#include "modules/hub/zip_archive.h"

#include <algorithm>
#include <cstring>

#include "modules/hub/atomic_file.h"
#include "ops/core/error.h"

namespace cosmos::modules {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50,
                   kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                   kLocatorBytes = 20, kMaxComment = 65535;
constexpr uint16_t kEncrypted = 1, kSizesFollow = 8;  // flags
constexpr uint16_t kStored = 0, kZip64Field = 1;
constexpr uint16_t kNo16 = 0xffff;
constexpr uint32_t kNo32 = 0xffffffff;  // "look in the zip64 field"
constexpr uint64_t kMaxEntries = 1'000'000;

// The 64-bit values of the zip64 extra field, in the order in which 32-bit ones were full.
class Zip64Field {
 public:
  Zip64Field(std::string_view extra, const std::string& where) : where_(where) {
    while (extra.size() >= 4) {
      uint16_t id = 0, size = 0;
      std::memcpy(&id, extra.data(), 2);
      std::memcpy(&size, extra.data() + 2, 2);
      require(size <= extra.size() - 4, where, ": an extra field is longer than its record");
      if (id == kZip64Field) values_ = extra.substr(4, size);
      extra.remove_prefix(4 + size);
    }
  }
  uint64_t resolve(uint32_t value) {
    if (value != kNo32) return value;
    require(values_.size() >= 8, where_, ": a 64-bit size is missing");
    uint64_t wide = 0;
    std::memcpy(&wide, values_.data(), 8);
    values_.remove_prefix(8);
    return wide;
  }

 private:
  const std::string& where_;
  std::string_view values_;
};

}  // namespace

template <typename Integer>
Integer ZipArchive::at(uint64_t offset, const char* what) const {
  require(offset <= bytes_.size && sizeof(Integer) <= bytes_.size - offset, where_, ": ", what,
          " lies outside the file (truncated?)");
  Integer value = 0;
  std::memcpy(&value, bytes_.data.get() + offset, sizeof value);
  return value;
}

bool ZipArchive::is_zip(const FileBytes& bytes) {
  return bytes.size >= 4 && (std::memcmp(bytes.data.get(), "PK\3\4", 4) == 0 ||
                             std::memcmp(bytes.data.get(), "PK\5\6", 4) == 0);
}

ZipArchive::ZipArchive(FileBytes bytes, std::string where)
    : bytes_(std::move(bytes)), where_(std::move(where)) {
  const Directory directory = find_directory();
  read_directory(directory);
  check_local_headers(directory);
}

ZipArchive::Directory ZipArchive::find_directory() const {
  require(bytes_.size >= kEndBytes, where_, ": ", bytes_.size,
          " bytes are too few for a zip archive");
  uint64_t end = bytes_.size - kEndBytes;
  const uint64_t last = end - std::min(end, kMaxComment);
  // The comment must reach exactly to the end of the file: nothing may hide behind the archive.
  const auto is_end = [&](uint64_t at_byte) {
    return at<uint32_t>(at_byte, "end") == kEnd &&
           at_byte + kEndBytes + at<uint16_t>(at_byte + 20, "comment") == bytes_.size;
  };
  while (!is_end(end)) {
    require(end > last, where_, ": has no end record of a zip archive (truncated?)");
    --end;
  }
  Directory directory{.begin = at<uint32_t>(end + 16, "directory"),
                      .size = at<uint32_t>(end + 12, "directory"),
                      .count = at<uint16_t>(end + 10, "directory")};
  uint64_t after = end;
  if (end >= kLocatorBytes && at<uint32_t>(end - kLocatorBytes, "locator") == kLocator64) {
    after = at<uint64_t>(end - kLocatorBytes + 8, "locator");
    require(at<uint32_t>(after, "64-bit end record") == kEnd64 &&
                end - kLocatorBytes >= kEnd64Bytes && after <= end - kLocatorBytes - kEnd64Bytes,
            where_, ": the 64-bit end record is not where its locator says");
    const Directory wide{.begin = at<uint64_t>(after + 48, "directory"),
                         .size = at<uint64_t>(after + 40, "directory"),
                         .count = at<uint64_t>(after + 32, "directory")};
    // Two readers must not see two archives: narrow fields agree or say "look further".
    require((directory.begin == kNo32 || directory.begin == wide.begin) &&
                (directory.size == kNo32 || directory.size == wide.size) &&
                (directory.count == kNo16 || directory.count == wide.count),
            where_, ": its two end records disagree");
    directory = wide;
  }
  require(directory.count <= kMaxEntries, where_, ": claims ", directory.count, " entries");
  require(directory.begin <= after && directory.size == after - directory.begin, where_,
          ": the directory does not lie where its end record says");
  return directory;
}

void ZipArchive::read_directory(const Directory& directory) {
  const uint64_t end = directory.begin + directory.size;
  uint64_t position = directory.begin;
  for (uint64_t i = 0; i < directory.count; ++i) {
    require(
        end - position >= kCentralBytes && at<uint32_t>(position, "directory") == kCentralHeader,
        where_, ": entry ", i, " of ", directory.count, " is missing from the directory");
    const auto flags = at<uint16_t>(position + 8, "entry"),
               method = at<uint16_t>(position + 10, "entry");
    const uint64_t name_bytes = at<uint16_t>(position + 28, "entry"),
                   extra_bytes = at<uint16_t>(position + 30, "entry"),
                   comment_bytes = at<uint16_t>(position + 32, "entry");
    require(end - position - kCentralBytes >= name_bytes + extra_bytes + comment_bytes, where_,
            ": entry ", i, " reaches beyond the directory");
    const char* text = bytes_.data.get() + position + kCentralBytes;
    const std::string name(text, name_bytes);
    const std::string where = where_ + ": " + printable(name);
    require(!name.empty() && name.find('\0') == std::string::npos, where, ": is not a name");
    require((flags & kEncrypted) == 0, where, ": is encrypted");
    Zip64Field wide({text + name_bytes, extra_bytes}, where);
    const uint64_t size = wide.resolve(at<uint32_t>(position + 24, "entry")),
                   packed = wide.resolve(at<uint32_t>(position + 20, "entry")),
                   header = wide.resolve(at<uint32_t>(position + 42, "entry"));
    require(method != kStored || size == packed, where, ": is stored, yet claims ", packed,
            " bytes that unfold to ", size);
    const bool added = entries_.emplace(name, Entry{header, 0, packed, method == kStored}).second;
    require(added, where, ": appears twice");
    position += kCentralBytes + name_bytes + extra_bytes + comment_bytes;
  }
  require(position == end, where_, ": ", end - position, " bytes of the directory are no entry");
}

void ZipArchive::check_local_headers(const Directory& directory) {
  std::vector<std::pair<const std::string*, Entry*>> order;
  for (auto& [name, entry] : entries_) {
    const std::string where = where_ + ": " + printable(name);
    require(entry.header <= directory.begin && directory.begin - entry.header >= kLocalBytes &&
                at<uint32_t>(entry.header, "entry") == kLocalHeader,
            where, ": the directory places it where no entry begins");
    const uint64_t name_bytes = at<uint16_t>(entry.header + 26, "entry"),
                   extra_bytes = at<uint16_t>(entry.header + 28, "entry");
    entry.begin = entry.header + kLocalBytes + name_bytes + extra_bytes;
    require(entry.begin <= directory.begin && entry.size <= directory.begin - entry.begin, where,
            ": ", entry.size, " bytes reach beyond the entries (truncated, or a false size)");
    const char* text = bytes_.data.get() + entry.header + kLocalBytes;
    require(std::string_view(text, name_bytes) == name &&
                (at<uint16_t>(entry.header + 8, "entry") == kStored) == entry.stored,
            where, ": its own header says otherwise than the directory");
    if ((at<uint16_t>(entry.header + 6, "entry") & kSizesFollow) == 0) {
      Zip64Field wide({text + name_bytes, extra_bytes}, where);
      const uint64_t size = wide.resolve(at<uint32_t>(entry.header + 22, "entry")),
                     packed = wide.resolve(at<uint32_t>(entry.header + 18, "entry"));
      require(packed == entry.size && (!entry.stored || size == packed), where,
              ": its own header gives another size than the directory");
    }
    order.emplace_back(&name, &entry);
  }
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.second->header < b.second->header; });
  for (std::size_t i = 1; i < order.size(); ++i)
    require(order[i].second->header >= order[i - 1].second->begin + order[i - 1].second->size,
            where_, ": ", printable(*order[i].first), " overlaps ", printable(*order[i - 1].first));
}

std::vector<std::string> ZipArchive::names() const {
  std::vector<std::string> all;
  for (const auto& [name, entry] : entries_) all.push_back(name);
  return all;
}

FileBytes ZipArchive::read(const std::string& name) const {
  const auto found = entries_.find(name);
  require(found != entries_.end(), where_, ": has no entry ", printable(name));
  require(found->second.stored, where_, ": ", printable(name),
          " is compressed; torch.save stores weights as they are, and nothing is unfolded here");
  return bytes_.slice(found->second.begin, found->second.size);
}

}  // namespace cosmos::modules
