#include "trainer/checkpoint/crc32c.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

#include "ops/core/error.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace cosmos::trainer {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;  // Castagnoli's, bit 31 standing for x^0

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// Table k advances a byte by k + 1 bytes, so that eight bytes go at once ("slicing by eight").
Tables make_tables() {
  Tables t{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    t[0][byte] = crc;
  }
  for (std::size_t k = 1; k < t.size(); ++k)
    for (std::size_t byte = 0; byte < 256; ++byte)
      t[k][byte] = (t[k - 1][byte] >> 8) ^ t[0][t[k - 1][byte] & 0xff];
  return t;
}

uint32_t by_tables(const unsigned char* p, std::size_t size, uint32_t crc) {
  static const Tables t = make_tables();
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, sizeof(word));
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; ++k) crc ^= t[7 - k][(word >> (8 * k)) & 0xff];
  }
  for (; size > 0; --size, ++p) crc = (crc >> 8) ^ t[0][(crc ^ *p) & 0xff];
  return crc;
}

#if defined(__x86_64__)
// The instruction takes eight bytes in three cycles: faster than any disk.
__attribute__((target("sse4.2"))) uint32_t by_instruction(const unsigned char* p, std::size_t size,
                                                          uint32_t crc) {
  uint64_t wide = crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, sizeof(word));
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; size > 0; --size, ++p) crc = _mm_crc32_u8(crc, *p);
  return crc;
}
#endif

// Polynomials over GF(2) of degree below 32, modulo kPolynomial.
uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (; a != 0; a <<= 1) {
    if (a & 0x80000000u) product ^= b;
    b = (b >> 1) ^ (b & 1 ? kPolynomial : 0);
  }
  return product;
}

// x^(8 bytes): what `bytes` zeros do to a checksum in front of them.
uint32_t power(uint64_t bytes) {
  uint32_t result = 1u << 31, square = 1u << 23;
  for (; bytes > 0; bytes >>= 1, square = multiply(square, square))
    if (bytes & 1) result = multiply(result, square);
  return result;
}

}  // namespace

uint32_t crc32c(const void* data, std::size_t size, uint32_t crc) {
  const auto* p = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
  static const bool instruction = __builtin_cpu_supports("sse4.2");
  if (instruction) return ~by_instruction(p, size, ~crc);
#endif
  return ~by_tables(p, size, ~crc);
}

uint32_t crc32c_share(uint32_t crc, uint64_t bytes) {
  return multiply(power(bytes), crc);
}

uint32_t crc32c_of_range(const std::filesystem::path& path, uint64_t begin, uint64_t end,
                         uint64_t size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, path.string(), ": cannot be read: ", std::strerror(errno));
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } const closer{fd};
  std::vector<char> buffer(1 << 20);
  uint32_t crc = 0;
  for (uint64_t at = begin; at < end;) {
    const auto wanted = std::min<uint64_t>(buffer.size(), end - at);
    const ssize_t got = ::pread(fd, buffer.data(), wanted, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    require(got > 0, path.string(),
            ": cannot be read: ", got < 0 ? std::strerror(errno) : "it ends too early");
    crc = crc32c(buffer.data(), static_cast<std::size_t>(got), crc);
    at += static_cast<uint64_t>(got);
  }
  return crc32c_share(crc, size - end);
}

uint32_t crc32c_file(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  require(!error, path.string(), ": cannot be read: ", error.message());
  return crc32c_of_range(path, 0, size, size);
}

}  // namespace cosmos::trainer
