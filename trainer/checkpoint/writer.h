#pragma once

// A rank's bytes of a checkpoint, written straight to where they belong in the final files.

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "trainer/checkpoint/state.h"

namespace c10 {
struct Event;
}

namespace cosmos::trainer {

class Group;

/// A file's size and this rank's share of its CRC-32C (crc32c_share); the xor of all ranks' shares
/// is the file's checksum.
struct FileSum {
  uint64_t bytes = 0;
  uint32_t crc = 0;
};
using FileSums = std::map<std::string, FileSum>;

/// Writes what is `mine` of `files` below `dir`, whose files other ranks may be writing at the same
/// time, on `threads` threads, and syncs. `written` counts bytes, for others to see that it moves.
/// Throws Error naming the file and the system's reason.
FileSums write_files(const std::filesystem::path& dir, const StateFiles& files, int64_t threads,
                     std::atomic<int64_t>* written = nullptr);

/// Copies of the pieces that are mine, taken while the training stands still so that it may go on
/// while they are written: pinned memory for tensors on a GPU, plain memory otherwise. The memory
/// stays for the next time.
class Staging {
 public:
  /// Puts copies in the places of the pieces' data. On a GPU the copies are under way until
  /// wait().
  void take(StateFiles& files);
  void wait();
  int64_t bytes() const;

 private:
  std::map<std::string, Tensor> buffers_;
  std::shared_ptr<c10::Event> copied_;  ///< on a GPU: when the copies are there
};

/// For file systems where ranks cannot write into one file (NFS): brings every file's pieces to one
/// rank, which then writes it alone. One tensor at a time. Every rank calls it.
void gather_to_writers(StateFiles& files, const Group& world);

/// Whether ranks can write into one file of `dir` side by side: each writes a part of a page that
/// it has read before, and looks for the others'. Every rank calls it.
bool shared_writes_work(const std::filesystem::path& dir, const Group& world);

}  // namespace cosmos::trainer
