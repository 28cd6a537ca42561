#pragma once

// Pickles and zip archives written by hand, well formed or not: what torch.save would write, and
// what somebody who means harm would.

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace cosmos::test {

/// The lowest `bytes` bytes of value, lowest first; zeros beyond its eight.
inline std::string little(uint64_t value, std::size_t bytes) {
  std::string text(bytes, '\0');
  std::memcpy(text.data(), &value, std::min(bytes, sizeof value));
  return text;
}

/// Opcodes one after another.
struct PickleText {
  std::string text = "\x80\x02";

  PickleText& raw(const std::string& opcodes) { return text += opcodes, *this; }
  PickleText& global(const std::string& module, const std::string& name) {
    return raw("c" + module + "\n" + name + "\n");
  }
  PickleText& string(const std::string& value) {
    return raw("X" + little(value.size(), 4) + value);
  }
  PickleText& integer(int64_t value) {
    return raw("\x8a\x08" + little(static_cast<uint64_t>(value), 8));
  }
  PickleText& sizes(const std::vector<int64_t>& values) {
    raw("(");
    for (const int64_t value : values) integer(value);
    return raw("t");
  }
  /// A float32 tensor on storage `key` of `elements`.
  PickleText& tensor(const std::string& key, int64_t elements, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& stride, int64_t offset = 0) {
    global("torch._utils", "_rebuild_tensor_v2").raw("((").string("storage");
    global("torch", "FloatStorage").string(key).string("cpu").integer(elements).raw("tQ");
    integer(offset).sizes(shape).sizes(stride).raw("\x89");
    return global("collections", "OrderedDict").raw(")RtR");
  }
  std::string stop() const { return text + "."; }
};

struct ZipEntry {
  std::string name, data;
  uint16_t method = 0;          ///< 0 stored, 8 deflated
  int64_t claimed_size = -1;    ///< unpacked size in both headers; -1: the true one
  int64_t claimed_header = -1;  ///< where the directory places it; -1: where it is
  std::string local_name = "";  ///< in its own header; "": the same
};

/// A zip archive of 32-bit fields, no check sums.
inline std::string zip_file(const std::vector<ZipEntry>& entries) {
  std::string file, directory;
  for (const auto& entry : entries) {
    const uint64_t header =
        entry.claimed_header < 0 ? file.size() : static_cast<uint64_t>(entry.claimed_header);
    const uint64_t size =
        entry.claimed_size < 0 ? entry.data.size() : static_cast<uint64_t>(entry.claimed_size);
    const std::string local = entry.local_name.empty() ? entry.name : entry.local_name;
    const auto fields = [&](const std::string& name) {
      return little(entry.method, 2) + little(0, 8) + little(entry.data.size(), 4) +
             little(size, 4) + little(name.size(), 2) + little(0, 2);
    };
    file += "PK\x03\x04" + little(20, 2) + little(0, 2) + fields(local) + local + entry.data;
    directory += "PK\x01\x02" + little(20, 2) + little(20, 2) + little(0, 2) + fields(entry.name) +
                 little(0, 10) + little(header, 4) + entry.name;
  }
  const uint64_t begin = file.size();
  return file + directory + "PK\x05\x06" + little(0, 4) + little(entries.size(), 2) +
         little(entries.size(), 2) + little(directory.size(), 4) + little(begin, 4) + little(0, 2);
}

/// What torch.save writes around a pickle and its storages.
inline std::string torch_file(const std::string& pickle,
                              const std::vector<ZipEntry>& storages = {}) {
  std::vector<ZipEntry> entries = {{"archive/data.pkl", pickle}};
  for (const auto& storage : storages) entries.push_back(storage);
  return zip_file(entries);
}

inline std::string float_bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace cosmos::test
