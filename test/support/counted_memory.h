#pragma once

// Bytes of tensors on the CPU, whichever thread takes or frees them: a transport's thread may be
// the last to hold what a collective moved, and MemoryMeter (ops/core/peak_memory.h) hears one
// thread.

#include <algorithm>
#include <c10/core/CPUAllocator.h>
#include <mutex>
#include <unordered_map>

namespace cosmos::test {

/// Stands before LibTorch's allocator from install() to the end of the process.
class CountedMemory : public c10::Allocator {
 public:
  /// The one of this process. Tensors that are there already are not counted.
  static CountedMemory& install() {
    c10::SetCPUAllocator(&instance(), /*priority=*/255);
    return instance();
  }

  c10::DataPtr allocate(std::size_t bytes) override {
    c10::DataPtr data = inner_.allocate(bytes);
    void* const pointer = data.get();
    if (!pointer) return data;
    const std::lock_guard lock(mutex_);
    sizes_[pointer] = static_cast<int64_t>(bytes);
    now_ += static_cast<int64_t>(bytes);
    peak_ = std::max(peak_, now_);
    data.release_context();
    return {pointer, pointer, &CountedMemory::free, data.device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &CountedMemory::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  int64_t peak() const {
    const std::lock_guard lock(mutex_);
    return peak_;
  }

 private:
  CountedMemory() = default;
  static CountedMemory& instance() {
    static auto* const memory = new CountedMemory;  // tensors in statics are freed after all else
    return *memory;
  }
  static void free(void* pointer) {
    CountedMemory& memory = instance();
    {
      const std::lock_guard lock(memory.mutex_);
      const auto found = memory.sizes_.find(pointer);
      memory.now_ -= found->second;
      memory.sizes_.erase(found);
    }
    memory.inner_.raw_deleter()(pointer);
  }

  c10::Allocator& inner_ = *c10::GetDefaultCPUAllocator();
  mutable std::mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t now_ = 0, peak_ = 0;
};

}  // namespace cosmos::test
