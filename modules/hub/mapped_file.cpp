#include "modules/hub/mapped_file.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <atomic>
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

namespace {

constexpr std::size_t kPiece = std::size_t{32} << 20;

uintptr_t page_bytes() {
  static const auto bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

// Whole pages around mapped bytes, in pieces that a thread asks for at once.
std::vector<std::string_view> pieces_of(std::vector<std::string_view> stretches) {
  const auto begins_before = [](std::string_view a, std::string_view b) {
    return a.data() < b.data();
  };
  std::sort(stretches.begin(), stretches.end(), begins_before);
  std::vector<std::string_view> pieces;
  for (const std::string_view stretch : stretches) {
    const char* const end = stretch.data() + stretch.size();
    const char* begin = stretch.data() - reinterpret_cast<uintptr_t>(stretch.data()) % page_bytes();
    // Neighbours share a piece: tensors of a file lie back to back.
    if (!pieces.empty()) {
      std::string_view& last = pieces.back();
      begin = std::max(begin, last.data() + last.size());
      if (begin == last.data() + last.size() && end > begin && last.size() < kPiece) {
        const std::size_t more =
            std::min<std::size_t>(kPiece - last.size(), static_cast<std::size_t>(end - begin));
        last = {last.data(), last.size() + more};
        begin += more;
      }
    }
    for (; begin < end; begin += kPiece)
      pieces.emplace_back(begin,
                          std::min<std::size_t>(kPiece, static_cast<std::size_t>(end - begin)));
  }
  return pieces;
}

// 0, or why the pages cannot be had.
int populate(std::string_view piece) {
  auto* const begin = const_cast<char*>(piece.data());
  if (::madvise(begin, piece.size(), MADV_POPULATE_READ) == 0) return 0;
  if (errno != EINVAL) return errno;
  for (std::size_t at = 0; at < piece.size(); at += page_bytes())  // Linux before 5.14
    static_cast<void>(*static_cast<const volatile char*>(begin + at));
  return 0;
}

}  // namespace

void bring_in(const std::vector<std::string_view>& stretches, const std::string& where) {
  const std::vector<std::string_view> pieces = pieces_of(stretches);
  std::atomic<std::size_t> next = 0;
  std::atomic<int> error = 0;
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (std::size_t i = next++; i < pieces.size() && error == 0; i = next++)
      if (const int code = populate(pieces[i]); code != 0) error = code;
  });
  require(error != EFAULT && error != EHWPOISON, where,
          ": a weight file has become shorter while it was read, or its disk fails");
  require(error == 0, where, ": cannot read a weight file: ", std::strerror(error));
  // They are in use from now on: not the first to go when memory is short.
  for (const std::string_view piece : pieces)
    ::madvise(const_cast<char*>(piece.data()), piece.size(), MADV_NORMAL);
}

}  // namespace cosmos::modules
