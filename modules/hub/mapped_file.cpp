#include "modules/hub/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/core/error.h"

namespace cosmos::modules {

FileBytes map_file(const std::filesystem::path& path, uint64_t min_bytes, const char* what) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  require(fd >= 0, path.string(), ": cannot open: ", std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  const auto size = static_cast<uint64_t>(regular ? status.st_size : 0);
  if (!regular || size < min_bytes) {
    ::close(fd);
    require(regular, path.string(), ": expected a regular file");
    fail(path.string(), ": ", size, " bytes are too few for a ", what, " file");
  }
  // Private and writable: in-place operations on a loaded tensor work and never reach the file.
  // NORESERVE: a file larger than memory plus swap must still map.
  void* bytes = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
  const int code = errno;
  ::close(fd);
  require(bytes != MAP_FAILED, path.string(), ": cannot map: ", std::strerror(code));
  // Mostly read once, from front to back: long reads, as a disk likes them.
  ::madvise(bytes, size, MADV_SEQUENTIAL);
  return {{static_cast<char*>(bytes), [size](char* p) { ::munmap(p, size); }}, size};
}

}  // namespace cosmos::modules
