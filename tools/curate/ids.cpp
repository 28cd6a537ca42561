#include "tools/curate/ids.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <random>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <libavutil/mem.h>
#include <libavutil/sha.h>
}

#include "ops/core/error.h"

namespace cosmos::curate {
namespace {

class Sha {
 public:
  explicit Sha(int bits) : bits_(bits), state_(av_sha_alloc()) {
    if (!state_) throw std::bad_alloc();
    av_sha_init(state_, bits);
  }
  ~Sha() { av_free(state_); }
  Sha(const Sha&) = delete;
  Sha& operator=(const Sha&) = delete;

  void add(const void* data, std::size_t size) {
    av_sha_update(state_, static_cast<const uint8_t*>(data), size);
  }
  std::vector<uint8_t> digest() {
    std::vector<uint8_t> bytes(static_cast<std::size_t>(bits_) / 8);
    av_sha_final(state_, bytes.data());
    return bytes;
  }

 private:
  int bits_;
  AVSHA* state_;
};

std::string hex(const uint8_t* bytes, std::size_t count) {
  static const char* kDigits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

class File {
 public:
  // O_NONBLOCK: opening a pipe must not hang; regular files ignore it.
  explicit File(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
    require(fd_ >= 0, std::strerror(errno));
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

std::string file_sha256(const std::filesystem::path& path) {
  const File file(path);
  struct stat status {};
  require(::fstat(file.fd(), &status) == 0 && S_ISREG(status.st_mode), "is not a regular file");
  Sha sha(256);
  std::vector<uint8_t> buffer(1 << 20);
  for (;;) {
    const ssize_t count = ::read(file.fd(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    require(count >= 0, "cannot be read: ", std::strerror(errno));
    if (count == 0) break;
    sha.add(buffer.data(), static_cast<std::size_t>(count));
  }
  const auto digest = sha.digest();
  return hex(digest.data(), digest.size());
}

std::string uuid5(std::string_view name) {
  static constexpr std::array<uint8_t, 16> kUrl{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
                                                0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};
  Sha sha(160);
  sha.add(kUrl.data(), kUrl.size());
  sha.add(name.data(), name.size());
  std::vector<uint8_t> bytes = sha.digest();
  bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0f) | 0x50);
  bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3f) | 0x80);
  const std::string text = hex(bytes.data(), 16);
  return text.substr(0, 8) + "-" + text.substr(8, 4) + "-" + text.substr(12, 4) + "-" +
         text.substr(16, 4) + "-" + text.substr(20);
}

std::string unique_name() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  std::random_device random;
  std::array<uint32_t, 4> digits{};
  for (uint32_t& digit : digits) digit = random();
  return std::string(host.data()) + "-" + std::to_string(::getpid()) + "-" +
         hex(reinterpret_cast<const uint8_t*>(digits.data()), sizeof(digits));
}

std::string clip_id(const std::string& sha256, int64_t begin_us, int64_t end_us) {
  return uuid5(sha256 + "_" + std::to_string(begin_us) + "_" + std::to_string(end_us));
}

}  // namespace cosmos::curate
