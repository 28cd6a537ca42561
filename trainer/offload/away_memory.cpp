#include "trainer/offload/away_memory.h"

#include <c10/util/accumulate.h>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <torch/types.h>
#include <unistd.h>

namespace cosmos::trainer {
namespace {

class HostMemory : public AwayMemory {
 public:
  explicit HostMemory(bool pinned) : pinned_(pinned) {}
  Tensor empty(at::IntArrayRef sizes, torch::Dtype dtype) override {
    return torch::empty(sizes, torch::TensorOptions(dtype).pinned_memory(pinned_));
  }

 private:
  bool pinned_;
};

/// Mapped pieces, kept for the next tensor of the same size. Outlives the memory while there are
/// tensors.
class Pieces {
 public:
  explicit Pieces(std::filesystem::path dir) : dir_(std::move(dir)) {}
  ~Pieces() {
    for (const auto& [bytes, piece] : free_) ::munmap(piece, bytes);
  }
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  void* take(std::size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = free_.find(bytes); found != free_.end()) {
        void* piece = found->second;
        free_.erase(found);
        return piece;
      }
    }
    return map_new(bytes);
  }
  void give_back(void* piece, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    free_.emplace(bytes, piece);
  }

 private:
  [[noreturn]] void fail_with(int error, std::size_t bytes) const {
    fail("trainer.offload_dir: ", dir_.string(), ": expected room for ", bytes,
         " bytes more, got: ", std::strerror(error),
         "; free some, or name a folder of another disk");
  }

  void* map_new(std::size_t bytes) const {
    std::filesystem::create_directories(dir_);
    std::string name = (dir_ / "offload-XXXXXX").string();
    const int fd = ::mkstemp(name.data());
    if (fd < 0) fail_with(errno, bytes);
    ::unlink(name.c_str());
    // Room now, rather than a signal at a later write.
    const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
    void* piece = error == 0
                      ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, /*offset=*/0)
                      : MAP_FAILED;
    const int reason = error != 0 ? error : errno;
    ::close(fd);
    if (piece == MAP_FAILED) fail_with(reason, bytes);
    return piece;
  }

  std::filesystem::path dir_;
  std::mutex mutex_;
  std::multimap<std::size_t, void*> free_;
};

class DiskMemory : public AwayMemory {
 public:
  explicit DiskMemory(std::filesystem::path dir)
      : pieces_(std::make_shared<Pieces>(std::move(dir))) {}

  Tensor empty(at::IntArrayRef sizes, torch::Dtype dtype) override {
    const auto bytes =
        static_cast<std::size_t>(c10::multiply_integers(sizes)) * c10::elementSize(dtype);
    if (bytes == 0) return torch::empty(sizes, dtype);
    return torch::from_blob(
        pieces_->take(bytes), sizes,
        [pieces = pieces_, bytes](void* piece) { pieces->give_back(piece, bytes); }, dtype);
  }

 private:
  std::shared_ptr<Pieces> pieces_;
};

}  // namespace

std::shared_ptr<AwayMemory> make_away_memory(const std::string& place,
                                             const std::filesystem::path& dir,
                                             torch::Device device) {
  if (place == "none") return nullptr;
  if (place == "host") return std::make_shared<HostMemory>(!device.is_cpu());
  return std::make_shared<DiskMemory>(dir);
}

}  // namespace cosmos::trainer
