#include "tools/curate/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <numeric>

#include "ops/core/error.h"

namespace cosmos::curate {
namespace {

constexpr std::size_t kBlock = 512;

struct Header {
  std::array<char, kBlock> bytes{};

  void text(std::size_t at, std::string_view value) {
    std::copy(value.begin(), value.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
  }
  /// Octal digits and a NUL in `width` bytes.
  void number(std::size_t at, int width, uint64_t value) {
    std::snprintf(bytes.data() + at, static_cast<std::size_t>(width), "%0*llo", width - 1,
                  static_cast<unsigned long long>(value));
  }
};

}  // namespace

void TarWriter::begin(const std::string& name, uint64_t size) {
  require(name.size() < 100 && size < (uint64_t{1} << 33), name,
          ": a tar archive holds names below 100 bytes and files below 8 GiB");
  Header header;
  header.text(0, name);
  header.number(100, 8, 0644);
  header.number(108, 8, 0);  // owner
  header.number(116, 8, 0);  // group
  header.number(124, 12, size);
  header.number(136, 12, 0);  // time
  header.text(148, "        ");
  header.text(156, "0");  // a plain file
  header.text(257, std::string_view("ustar\0"
                                    "00",
                                    8));
  const auto add = [](unsigned sum, char c) { return sum + static_cast<unsigned char>(c); };
  const unsigned sum = std::accumulate(header.bytes.begin(), header.bytes.end(), 0u, add);
  header.number(148, 7, sum);  // six digits, NUL, and the space that stands there
  file_.write(header.bytes.data(), kBlock);
}

void TarWriter::pad(uint64_t size) {
  static constexpr std::array<char, kBlock> kZeros{};
  file_.write(kZeros.data(), (kBlock - size % kBlock) % kBlock);
}

void TarWriter::add(const std::string& name, std::string_view bytes) {
  begin(name, bytes.size());
  file_.write(bytes);
  pad(bytes.size());
}

void TarWriter::add_file(const std::string& name, const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  require(in.good(), path.string(), ": cannot be read");
  const uint64_t size = std::filesystem::file_size(path);
  begin(name, size);
  std::string part(std::size_t{1} << 20, '\0');
  uint64_t left = size;
  while (left > 0) {
    const auto wanted = static_cast<std::streamsize>(std::min<uint64_t>(left, part.size()));
    require(bool(in.read(part.data(), wanted)), path.string(),
            ": became shorter while it was read");
    file_.write(part.data(), static_cast<std::size_t>(wanted));
    left -= static_cast<uint64_t>(wanted);
  }
  pad(size);
}

void TarWriter::commit() {
  const std::string end(2 * kBlock, '\0');
  file_.write(end);
  file_.commit();
}

}  // namespace cosmos::curate
