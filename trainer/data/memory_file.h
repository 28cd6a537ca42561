#pragma once

// Files of a muxer, in memory. Private to trainer/data, as libav.h is.

#ifdef COSMOS_VIDEO

#include <algorithm>

#include "trainer/data/libav.h"

namespace cosmos::trainer::libav {

/// What a muxer writes, in memory: clips are small once coded, and only whole ones reach the disk.
class MemoryFile {
 public:
  MemoryFile() {
    constexpr int kBuffer = 1 << 16;
    io_ = avio_alloc_context(static_cast<unsigned char*>(av_malloc(kBuffer)), kBuffer, 1, this,
                             nullptr, write, seek);
    if (!io_) throw std::bad_alloc();
  }
  ~MemoryFile() {
    av_freep(&io_->buffer);
    avio_context_free(&io_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  AVIOContext* io() const { return io_; }
  const std::string& bytes() const { return bytes_; }

 private:
#if LIBAVFORMAT_VERSION_MAJOR >= 61
  static int write(void* self, const uint8_t* data, int size) {
#else
  static int write(void* self, uint8_t* data, int size) {
#endif
    auto& file = *static_cast<MemoryFile*>(self);
    const std::size_t end = file.place_ + static_cast<std::size_t>(size);
    if (end > file.bytes_.size()) file.bytes_.resize(end);
    std::copy_n(data, size, file.bytes_.begin() + static_cast<std::ptrdiff_t>(file.place_));
    file.place_ = end;
    return size;
  }
  static int64_t seek(void* self, int64_t offset, int whence) {
    auto& file = *static_cast<MemoryFile*>(self);
    if (whence & AVSEEK_SIZE) return static_cast<int64_t>(file.bytes_.size());
    if (whence == SEEK_CUR) offset += static_cast<int64_t>(file.place_);
    if (whence == SEEK_END) offset += static_cast<int64_t>(file.bytes_.size());
    if (offset < 0) return AVERROR(EINVAL);
    file.place_ = static_cast<std::size_t>(offset);
    return offset;
  }

  AVIOContext* io_ = nullptr;
  std::string bytes_;
  std::size_t place_ = 0;
};

struct FreeOutput {
  void operator()(AVFormatContext* format) const { avformat_free_context(format); }
};
using OutputPtr = std::unique_ptr<AVFormatContext, FreeOutput>;

}  // namespace cosmos::trainer::libav

#endif  // COSMOS_VIDEO
