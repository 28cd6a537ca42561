#include "trainer/checkpoint/writer.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <thread>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "trainer/checkpoint/crc32c.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kChunk = 16 << 20;  // a checksum of bytes that are still in the cache

/// One file of which this rank writes a part.
class SharedFile {
 public:
  SharedFile(fs::path path, uint64_t bytes, std::atomic<int64_t>* written)
      : path_(std::move(path)), bytes_(bytes), written_(written) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) fail_errno("cannot create the file");
  }
  ~SharedFile() { ::close(fd_); }
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  /// Claims the disk space, so that a full disk is known before the work is done.
  void reserve() const {
    if (bytes_ == 0 || ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes_)) == 0) return;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) fail_errno("cannot write");
  }

  /// Adds to the share of the checksum. By several threads at once.
  void write(uint64_t at, const char* data, uint64_t size) {
    while (size > 0) {
      const uint64_t part = std::min(size, kChunk);
      crc_ ^= crc32c_share(crc32c(data, part), bytes_ - at - part);
      write_all(at, data, part);
      if (written_) *written_ += static_cast<int64_t>(part);
      // The disk begins now, not at the sync.
      if (part == kChunk) ::sync_file_range(fd_, off_t(at), off_t(part), SYNC_FILE_RANGE_WRITE);
      at += part, data += part, size -= part;
    }
  }

  void sync() const {
    if (::fsync(fd_) != 0) fail_errno("cannot write");
  }

  FileSum sum() const { return {.bytes = bytes_, .crc = crc_}; }

 private:
  void write_all(uint64_t at, const char* data, uint64_t size) const {
    while (size > 0) {
      const ssize_t written = ::pwrite(fd_, data, size, static_cast<off_t>(at));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_errno("cannot write");
      at += written, data += written, size -= written;
    }
  }
  [[noreturn]] void fail_errno(const char* action) const {
    fail(path_.string(), ": ", action, ": ", std::strerror(errno));
  }

  fs::path path_;
  uint64_t bytes_;
  std::atomic<int64_t>* written_;
  int fd_ = -1;
  std::atomic<uint32_t> crc_{0};
};

/// Runs `count` jobs on `threads` threads, this one among them; the first failure is thrown.
template <typename Job>
void run_jobs(std::size_t count, int64_t threads, Job job) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < count; i = next++) job(i);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int64_t t = 1; t < threads; ++t) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  if (failure) std::rethrow_exception(failure);
}

/// fn(first byte in the tensor, first byte in the region, bytes) for each run of bytes that lie
/// together in both.
template <typename Fn>
void for_each_run(const Piece& piece, Fn fn) {
  const std::vector<int64_t>& shape = piece.info.shape;
  const Region& region = piece.region;
  const auto element = static_cast<uint64_t>(c10::elementSize(piece.info.dtype));
  if (region.numel() == 0) return;
  // Dimensions behind `split` are whole, so the region's part of `split` is one run.
  std::size_t split = shape.size();
  uint64_t inner = element;
  while (split > 0 && region.size[split - 1] == shape[split - 1]) inner *= shape[--split];
  uint64_t run = inner;
  if (split > 0) run *= region.size[--split];
  uint64_t from = 0;
  const auto walk = [&](const auto& self, std::size_t d, uint64_t index) -> void {
    if (d < split) {
      for (int64_t i = 0; i < region.size[d]; ++i)
        self(self, d + 1, index * shape[d] + region.offset[d] + i);
      return;
    }
    uint64_t element_index = index;
    for (std::size_t k = split; k < shape.size(); ++k)
      element_index = element_index * shape[k] + region.offset[k];
    fn(element_index * element, from, run);
    from += run;
  };
  walk(walk, 0, 0);
}

void write_piece(SharedFile& file, uint64_t begin, const Piece& piece) {
  const Tensor data = piece.data.to(torch::kCPU, piece.info.dtype).contiguous();
  require(data.numel() == piece.region.numel(), "checkpoint: a piece of ", data.numel(),
          " elements, its region has ", piece.region.numel());
  const char* bytes = static_cast<const char*>(data.data_ptr());
  for_each_run(piece, [&](uint64_t at, uint64_t from, uint64_t size) {
    file.write(begin + at, bytes + from, size);
  });
}

struct Job {
  SharedFile* file;
  uint64_t begin;
  const Piece* piece;
};

}  // namespace

FileSums write_files(const fs::path& dir, const StateFiles& files, int64_t threads,
                     std::atomic<int64_t>* written) {
  std::map<std::string, std::unique_ptr<SharedFile>> open;
  std::vector<Job> jobs;
  FileSums sums;
  for (const auto& [path, file] : files) {
    if (file.tensors.empty()) {
      if (!file.head_mine) continue;
      modules::write_file(dir / path, file.text);
      sums[path] = {file.text.size(), crc32c(file.text.data(), file.text.size())};
      continue;
    }
    std::map<std::string, modules::TensorInfo> infos;
    bool mine = file.head_mine;
    for (const auto& [name, piece] : file.tensors) {
      infos[name] = piece.info;
      mine |= piece.mine;
    }
    if (!mine) continue;
    const auto layout = modules::lay_out_safetensors(infos, file.metadata, (dir / path).string());
    fs::create_directories((dir / path).parent_path());
    auto shared = std::make_unique<SharedFile>(dir / path, layout.bytes, written);
    if (file.head_mine) {
      shared->reserve();
      shared->write(0, layout.head.data(), layout.head.size());
    }
    for (const auto& [name, piece] : file.tensors)
      if (piece.mine)
        jobs.push_back({shared.get(), layout.head.size() + layout.infos.at(name).begin, &piece});
    open[path] = std::move(shared);
  }
  run_jobs(jobs.size(), threads,
           [&](std::size_t i) { write_piece(*jobs[i].file, jobs[i].begin, *jobs[i].piece); });
  for (const auto& [path, file] : open) {
    file->sync();
    sums[path] = file->sum();
  }
  return sums;
}

}  // namespace cosmos::trainer
