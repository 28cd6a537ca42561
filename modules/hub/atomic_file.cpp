#include "modules/hub/atomic_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "ops/core/error.h"

namespace cosmos::modules {
namespace {

// Makes a rename durable. Some file systems refuse to sync a folder; the data itself is safe by
// then.
void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  require(path_.has_filename(), path_.string(), ": expected the name of a file to write");
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  require(!error, folder.string(), ": cannot create the folder: ", error.message());
  require(!std::filesystem::is_directory(path_, error), path_.string(),
          ": is a folder, cannot write a file of that name");

  // Process id and a counter keep ranks and threads that write into one folder apart.
  static std::atomic<uint64_t> counter{0};
  temporary_ = folder / ("." + path_.filename().string() + ".tmp-" + std::to_string(::getpid()) +
                         "-" + std::to_string(counter++));
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno("cannot create the file");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::fail_errno(const char* action) const {
  const int code = errno;
  fail(path_.string(), ": ", action, ": ", std::strerror(code),
       code == ENOSPC || code == EDQUOT ? " (free some space; nothing was left behind)" : "");
}

void AtomicFile::reserve(uint64_t bytes) {
  if (bytes == 0) return;
  if (::fallocate(fd_, 0, 0, static_cast<off_t>(bytes)) == 0) return;
  // File systems that cannot reserve say so; the writes themselves will tell.
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) fail_errno("cannot write");
}

void AtomicFile::write(const void* data, std::size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    // Linux writes at most 2 GiB a call.
    const ssize_t written = ::write(fd_, bytes, std::min<std::size_t>(size, 1 << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_errno("cannot write");
    bytes += written;
    size -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  require(fd_ >= 0, path_.string(), ": was committed already");
  if (::fsync(fd_) != 0) fail_errno("cannot write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("cannot rename into place");
  ::close(std::exchange(fd_, -1));
  sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

bool is_file(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  // O_NONBLOCK: opening a pipe must not hang; regular files ignore it.
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  require(fd >= 0, path.string(), ": cannot open: ", std::strerror(errno));
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat status {};
  require(::fstat(fd, &status) == 0 && S_ISREG(status.st_mode), path.string(),
          ": expected a regular file");
  require(static_cast<uint64_t>(status.st_size) <= max_bytes, path.string(), ": ", status.st_size,
          " bytes are more than the limit of ", max_bytes);
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::read(fd, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    require(count >= 0, path.string(), ": cannot read: ", std::strerror(errno));
    if (count == 0) break;  // shrank while we read
    done += static_cast<std::size_t>(count);
  }
  text.resize(done);
  return text;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kMaxBytes = 200;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, kMaxBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return text.size() > kMaxBytes ? out + "..." : out;
}

}  // namespace cosmos::modules
